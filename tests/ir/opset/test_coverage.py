"""Which operators have a specification: all of ONNX's default domain, and what onnxruntime's optimisers write."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import onnx
import onnxruntime
import pytest

from eopt.ir.ops import FAMILIES, known, spec

ROOT = Path(__file__).parents[3]

# Of com.microsoft, what the C++ optimiser (onnxruntime/core/optimizer: fusions, quantisation and layout) writes at any
# level and for any provider, and behind the bar what the Python ones (onnxruntime/transformers, /quantization) do.
EMITTED = """Attention BiasDropout BiasGelu BiasSoftmax BitmaskBiasDropout BitmaskDropout DequantizeLinear
    DynamicQuantizeMatMul EmbedLayerNormalization FastGelu FusedConv FusedGemm FusedMatMul FusedMatMulActivation
    GatherBlockQuantized Gelu GroupQueryAttention IsAllFinite MatMulIntegerToFloat MatMulNBits MatMulNBitsMlp
    MatMulNBitsQkv MultiHeadAttention NhwcFusedConv NhwcMaxPool QGemm QLinearAdd QLinearAveragePool QLinearConcat
    QLinearConv QLinearGlobalAveragePool QLinearLeakyRelu QLinearMul QLinearSigmoid QLinearSoftmax QLinearWhere
    QuantizeLinear QuickGelu RotaryEmbedding SkipLayerNormalization SkipSimplifiedLayerNormalization TransposeMatMul |
    BiasAdd BiasSplitGelu DecoderMaskedMultiHeadAttention DynamicQuantizeLSTM GatedRelativePositionBias GemmFastGelu
    GroupNorm LongformerAttention MatMulBnb4 MoE NhwcConv PackedAttention PackedMultiHeadAttention PagedAttention
    QAttention QEmbedLayerNormalization QMoE QOrderedAttention QOrderedGelu QOrderedLayerNormalization QOrderedMatMul
    RelativePositionBias RemovePadding RestorePadding SkipGroupNorm SparseAttention""".replace("|", "").split()

# Whole generation loops and precompiled engines, whose work nobody can tell from here.
OPAQUE = {"BeamSearch", "GreedySearch", "Sampling", "WhisperBeamSearch", "EPContext", "Snpe"}


@pytest.fixture(scope="module")
def page():
    location = importlib.util.spec_from_file_location("generate_operators", ROOT / "docs" / "generate_operators.py")
    module = importlib.util.module_from_spec(location)
    location.loader.exec_module(module)
    return module


@pytest.fixture
def current(page):
    """The same packages as the checked-in table was written with; others register other operators."""
    written = page.TABLE.read_text()
    if f"onnx {onnx.__version__} and onnxruntime {onnxruntime.__version__};" not in written:
        pytest.skip("docs/operators.md was written with other versions")
    return page


@pytest.mark.parametrize("domain", ["", "ai.onnx.ml"], ids=["onnx", "ml"])
def test_every_operator_of_every_version_has_a_specification(domain):
    """Those deprecated since then too: models that hold them are still read."""
    schemas = onnx.defs.get_all_schemas_with_history()
    missing = {schema.name for schema in schemas if schema.domain == domain and spec(schema.name, domain) is None}
    assert missing == set()


def test_what_onnxruntimes_optimisers_write_has_a_specification():
    assert {op for op in EMITTED if spec(op, "com.microsoft") is None} == set()


def test_the_list_names_operators_that_exist(current):
    assert set(EMITTED) <= current.schemas()["com.microsoft"]
    assert current.schemas()["com.microsoft.nchwc"] <= {op for domain, op in known() if domain == "com.microsoft.nchwc"}


def test_what_has_no_specification_is_listed(current):
    missing = set(current.unspecified())
    assert missing >= OPAQUE, "nobody can know what these do"
    assert ", ".join(sorted(missing)) in current.TABLE.read_text()


def test_the_table_is_current(current):
    assert current.TABLE.read_text() == current.render(), "run python docs/generate_operators.py"


def test_every_formula_says_what_it_counts():
    assert [key for key in known() if not spec(key[1], key[0]).work_of.__doc__] == []


def test_no_family_file_is_forgotten():
    helpers = {"__init__", "bodies", "shared"}
    assert {path.stem for path in (ROOT / "ir" / "opset").glob("*.py")} - helpers == set(FAMILIES)
