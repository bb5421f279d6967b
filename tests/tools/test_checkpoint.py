"""Checkpoints of compiled Hugging Face models: what they hold, what they name as left out, and who loads them."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from eopt.backends.checkpoint import files, recover
from eopt.backends.ort import OrtRunner
from eopt.ir import onnx_io
from eopt.ir.errors import InputError, OutputError, UsageError
from eopt.ir.node import Attrs, Op
from eopt.ir.types import DType, Value
from eopt.passes.pipeline import Compiled
from eopt.passes.quant import candidates, weight_only
from eopt.passes.quant.blocks import Blocks
from eopt.tools import checkpoint, frontdoor
from eopt.tools.compile import compile_model

WIDTH = 64
LAYER = "model.layers.0"
EMBEDDING = "model.embed_tokens.weight"
NORM, BIAS = f"{LAYER}.input_layernorm.weight", f"{LAYER}.self_attn.q_proj.bias"
PROJECTIONS = {f"{LAYER}.self_attn.{leaf}_proj.weight": size for leaf, size in (("q", 64), ("k", 32), ("o", 64))}
Q, K, OUT = PROJECTIONS
GROUPS_OF_32 = Blocks()


def parameters(dtype=np.float32):
    """Parameters as Hugging Face stores them, [n, k]."""
    random = np.random.default_rng(0)
    made = {EMBEDDING: random.normal(size=(8, WIDTH)), NORM: random.uniform(0.5, 2, WIDTH)}
    made |= {name: random.normal(size=(rows, WIDTH)) for name, rows in PROJECTIONS.items()}
    made |= {BIAS: random.normal(size=WIDTH), "lm_head.weight": random.normal(size=(8, WIDTH))}
    return {name: array.astype(dtype) for name, array in made.items()}


def network(given):
    """Of rows x of the embedding `(x * norm) Q + b`, `(x * norm) K` and `x O`, with names as exporters give them."""
    constants = {name: np.ascontiguousarray(given[name].astype(np.float32).T) for name in (NORM, *PROJECTIONS, BIAS)}
    constants[EMBEDDING] = given[EMBEDDING].astype(np.float32)
    nodes = [
        helper.make_node("Gather", [EMBEDDING, "ids"], ["x"]),
        helper.make_node("Mul", ["x", NORM], ["h"]),
        helper.make_node("MatMul", ["h", Q], ["q0"]),
        helper.make_node("Add", ["q0", BIAS], ["q"]),
        helper.make_node("MatMul", ["h", K], ["k"]),
        helper.make_node("MatMul", ["x", OUT], ["o"]),
    ]
    ports = [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch"])]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "qko"]
    initialisers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "g", ports, results, initialisers)
    return onnx_io.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10))


def folder(path: Path, given, shard_bytes=10**9) -> Path:
    path.mkdir()
    entries = [files.Entry({n: (a.dtype, a.shape)}, lambda n=n, a=a: {n: a}) for n, a in given.items()]
    files.write(path, entries, shard_bytes)
    (path / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"], "hidden_size": WIDTH}))
    (path / "tokenizer.json").write_text("{}")
    return path


def in_blocks(model, spec=GROUPS_OF_32, form="qdq", exclude=()):
    anchors, _ = candidates.find(model, ("MatMul", "Gemm"), exclude)
    return weight_only.quantise(model, anchors, spec, weight_only.Form(form))


@pytest.fixture
def source(tmp_path: Path):
    return folder(tmp_path / "source", parameters())


def written(model, source, shard_bytes=files.SHARD_BYTES):
    original = network(parameters())
    return checkpoint.write(Compiled(original, model), source, source.parent / "made", shard_bytes)


def quantised_weights(model):
    """Dequantised weights by name, as the compiled model has them."""
    found = {key: place for key, place in recover.places(model).items() if place.op.op in recover.LINEAR}
    return {key: recover.quantised(model, place.op).dequantised() for key, place in found.items()}


def unpacked(tensors, module):
    """The definition of the format: element i of a row lies at bit 4 i of its words, 8 above its value."""
    words = tensors[f"{module}.weight_packed"].array().view(np.uint32)
    rows, columns = tensors[f"{module}.weight_shape"].array()
    integers = np.stack([words >> np.uint32(4 * place) & 15 for place in range(8)], -1).reshape(rows, -1)[:, :columns]
    scales = tensors[f"{module}.weight_scale"].array()
    return (integers.astype(np.float32) - 8) * np.repeat(scales, columns // scales.shape[1], axis=1)


@pytest.mark.parametrize("form", ["qdq", "nbits"])
@pytest.mark.parametrize("shard_bytes", [1000, files.SHARD_BYTES])
def test_the_checkpoint_has_the_numbers_of_the_model(source: Path, form, shard_bytes):
    (source / "modeling_llama.py").write_text("raise SystemExit")
    (source / "tokenizer_config.json").symlink_to("/etc/hostname")
    model = in_blocks(network(parameters()), form=form)
    made = written(model, source, shard_bytes)
    tensors = files.opened(made.folder)
    expected = quantised_weights(model)
    for name in PROJECTIONS:
        assert np.array_equal(unpacked(tensors, name.removesuffix(".weight")), expected[name])
        assert name not in tensors
    for name in (EMBEDDING, "lm_head.weight", NORM, BIAS):
        assert np.array_equal(tensors[name].array(), parameters()[name])
    config = json.loads((made.folder / "config.json").read_text())
    assert config["hidden_size"] == WIDTH
    assert config["quantization_config"]["ignore"] == ["lm_head"]
    assert config["quantization_config"]["config_groups"]["group_0"]["weights"]["group_size"] == 32
    assert (made.folder / "tokenizer.json").exists() and not list(made.folder.glob("*.py"))
    assert not (made.folder / "tokenizer_config.json").exists(), "a link out of the folder"
    assert any(line.startswith("tokenizer_config.json: not copied") for line in made.notes)
    count = len(list(made.folder.glob("*.safetensors")))
    assert count == (7 if shard_bytes == 1000 else 1), "seven tensors or layers have more than 500 bytes"


def smooth(model, factors, names=(Q, K), norm=NORM):
    """Move factors from a normalisation into the products behind it, as SmoothQuant does."""
    arrays = {name: model.constant(name) * factors[:, None] for name in names}
    return model.with_weights(arrays | {norm: model.constant(norm) / factors})


def test_scales_that_moved_into_a_normalisation_are_carried(source: Path):
    factors = np.geomspace(0.2, 5, WIDTH).astype(np.float32)
    model = in_blocks(smooth(network(parameters()), factors))
    tensors = files.opened(written(model, source).folder)
    assert np.array_equal(tensors[NORM].array(), parameters()[NORM] / factors)
    # Unoptimised: onnxruntime otherwise fuses to a product that rounds its input to int8.
    [expected] = OrtRunner(optimize=False).run(model, [{"ids": np.arange(8)}])
    found = parameters()[EMBEDDING] * tensors[NORM].array() @ unpacked(tensors, f"{LAYER}.self_attn.k_proj").T
    assert np.allclose(found, expected["k"], rtol=1e-5, atol=1e-5), "64 terms near 1 in float32, in another order"


def test_new_values_keep_the_type_of_the_source(tmp_path: Path):
    given = parameters(ml_dtypes.bfloat16)
    given = {name: array.astype(np.float32).astype(ml_dtypes.bfloat16) for name, array in given.items()}
    source = folder(tmp_path / "source", given)
    factors = np.full(WIDTH, 4, np.float32)
    original = network(given)
    made = checkpoint.write(Compiled(original, in_blocks(smooth(original, factors))), source, tmp_path / "made")
    tensors = files.opened(made.folder)
    assert tensors[NORM].dtype == ml_dtypes.bfloat16
    assert np.array_equal(tensors[NORM].array(), given[NORM] / ml_dtypes.bfloat16(4))


def test_scales_that_moved_out_of_sight_are_refused(source: Path):
    factors = np.geomspace(0.2, 5, WIDTH).astype(np.float32)
    model = smooth(network(parameters()), factors, names=(Q, K, OUT))
    lost = Blocks(group=None, bits=8)
    with pytest.raises(InputError, match="compile without smoothing"):
        written(uneven(in_blocks(model, lost, exclude=["*k_proj*"]), K), source)


def uneven(model, name):
    """With one weight in groups that do not divide its inputs."""
    op = next(user for user in model.users(name))
    weight = model.constant(name)
    scales = np.full((2, weight.shape[1]), 0.1, np.float32)
    value = Value("uneven", DType.FLOAT32, weight.shape)
    node = Op("DequantizeLinear", ("uneven_q", "uneven_s"), (value,), Attrs.of(axis=0, block_size=48))
    arrays = {"uneven_q": np.clip(np.rint(weight / 0.1), -127, 127).astype(np.int8), "uneven_s": scales}
    changed = replace(op, inputs=(op.inputs[0], "uneven"), uid=0)
    return model.replace([op], [node, changed], weights=arrays)


def test_a_layer_the_format_cannot_hold_stays_as_it_was(source: Path):
    model = uneven(in_blocks(network(parameters()), exclude=["*k_proj*"]), K)
    made = written(model, source)
    assert np.array_equal(files.opened(made.folder)[K].array(), parameters()[K])
    config = json.loads((made.folder / "config.json").read_text())["quantization_config"]
    assert f"{LAYER}.self_attn.k_proj" in config["ignore"]
    assert f"{K}: left as in the source: its 64 input features are no multiple of the group size 48" in made.notes
    assert f"{LAYER}.self_attn: vLLM takes one scheme for q_proj, k_proj, v_proj, where these differ" in made.notes


def test_a_layer_that_is_rescaled_as_it_runs_stays_as_it_was(source: Path):
    model = in_blocks(network(parameters()), exclude=["*k_proj*"])
    [op] = model.users(K)
    factors = np.geomspace(0.2, 5, WIDTH).astype(np.float32)
    scaled = Value("scaled", DType.FLOAT32, ("batch", WIDTH))
    nodes = [Op("Mul", ("h", "factors"), (scaled,)), replace(op, inputs=("scaled", "moved"), uid=0)]
    model = model.replace([op], nodes, weights={"factors": 1 / factors, "moved": model.constant(K) * factors[:, None]})
    made = written(in_blocks(model, Blocks(8)), source)
    assert np.array_equal(files.opened(made.folder)[K].array(), parameters()[K])
    assert f"{K}: left as in the source: its input is rescaled as the model runs" in made.notes


def test_another_model_or_another_shape_is_refused(source: Path):
    model = network(parameters())
    other = np.random.default_rng(9).normal(size=(WIDTH, 64)).astype(np.float32)
    with pytest.raises(InputError, match="not made of the source's"):
        written(in_blocks(model.with_weights({Q: other})), source)
    narrow = replace(model, weights=model.with_weights({K: model.constant(K)[:, :16]}).weights)
    with pytest.raises(InputError, match=r"is \[16, 64\] in the compiled model and \[32, 64\] in its source"):
        written(in_blocks(narrow), source)
    with pytest.raises(InputError, match="no linear layer"):
        written(model, source)
    assert not (source.parent / "made").exists()


def test_usage(source: Path):
    with pytest.raises(UsageError, match="needs a Hugging Face folder"):
        checkpoint.check("model.onnx", source.parent / "made")
    with pytest.raises(OutputError, match="is there already"):
        checkpoint.check(source, source)
    (source / "config.json").write_text('{"quantization_config": {}}')
    with pytest.raises(InputError, match="describes no float model"):
        checkpoint.check(source, source.parent / "made")


# -- with the real packages

LOADERS = importlib.util.find_spec("compressed_tensors")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Random models by kind, each made once."""
    return lru_cache(lambda kind: tiny(tmp_path_factory.mktemp("source") / kind, kind))


def tiny(path: Path, kind: str) -> Path:
    import torch
    import transformers

    torch.manual_seed(0)
    if kind == "gpt2":
        config = transformers.GPT2Config(vocab_size=128, n_embd=64, n_layer=2, n_head=4, n_positions=64)
        model = transformers.GPT2LMHeadModel(config)
    else:
        config = transformers.LlamaConfig(
            vocab_size=128,
            hidden_size=64,
            intermediate_size=160,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            attention_bias=True,
            tie_word_embeddings=kind == "tied",
        )
        model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "bias" in name:  # otherwise all alike, and no mistake would be seen
                parameter.uniform_(0.5, 1.5)
    model.save_pretrained(path, max_shard_size="5GB" if kind == "tied" else "100KB")
    return path


def with_inputs(model, form):
    """Per-channel int8 or float8 weights, with inputs on a constant grid or, `dynamic`, on one found as it runs."""
    for op in model.leaves():
        weight = model.constant(op.inputs[1]) if op.op == "MatMul" else None
        if weight is None:
            continue
        peak = 448.0 if form == "float8" else 127.0
        scale = (np.abs(weight).max(axis=0) / peak).astype(np.float32)
        kind = ml_dtypes.float8_e4m3fn if form == "float8" else np.int8
        integers = (weight / scale if form == "float8" else np.rint(weight / scale)).astype(kind)
        names = [f"{op.name}_{part}" for part in ("q", "s", "xs", "xz", "xq", "xd", "w")]
        q, s, xs, xz, xq, xd, w = names
        zero = np.uint8(120) if form == "offset" else np.zeros((), kind)
        arrays = {q: integers, s: scale}
        if form == "dynamic":
            values = (Value(xq, DType.UINT8), Value(xs, DType.FLOAT32), Value(xz, DType.UINT8))
            first = Op("DynamicQuantizeLinear", (op.inputs[0],), values)
        else:
            arrays |= {xs: np.float32(8 / peak), xz: np.asarray(zero)}
            first = Op("QuantizeLinear", (op.inputs[0], xs, xz), (Value(xq),))
        second = Op("DequantizeLinear", (xq, xs, xz), (Value(xd, DType.FLOAT32),))
        third = Op("DequantizeLinear", (q, s), (Value(w, DType.FLOAT32, weight.shape),), Attrs.of(axis=1))
        changed = replace(op, inputs=(xd, w), uid=0)
        model = model.replace([op], [first, second, third, changed], weights=arrays)
    return model.swept()


@lru_cache(1)
def exported(path: Path):
    return frontdoor.load(path)


def compiled(path: Path, form: str) -> Compiled:
    original = exported(path)
    if form in ("static", "offset", "dynamic", "float8"):
        from eopt.passes import opset

        lifted, _ = opset.lift(original, 21)
        return Compiled(original, with_inputs(lifted, form))
    bits, group, symmetric, kind = {
        "int4": (4, 32, True, "qdq"),
        "uint4": (4, 32, False, "qdq"),
        "nbits": (4, 16, True, "nbits"),
        "int8": (8, None, True, "qdq"),
    }[form]
    return Compiled(original, in_blocks(original, Blocks(bits, group, symmetric), kind))


def transformer(path: Path, **options):
    import torch
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, **options).eval()


@pytest.mark.slow
@pytest.mark.skipif(not LOADERS, reason="compressed-tensors is not installed")
@pytest.mark.parametrize(
    ("kind", "form"),
    [
        ("plain", "uint4"),
        ("plain", "int4"),
        ("plain", "int8"),
        ("plain", "static"),
        ("plain", "offset"),
        ("plain", "dynamic"),
        ("plain", "float8"),
        ("tied", "nbits"),
    ],
)
def test_transformers_loads_what_was_written(tmp_path: Path, sources, kind, form):
    import torch
    import transformers

    source = sources(kind)
    made = compiled(source, form)
    told = checkpoint.write(made, source, tmp_path / "made", 10**5)
    assert len(told.schemes) == 14
    inputs = form in ("static", "offset", "dynamic", "float8")
    # Packed zero points are loaded by `dequantize` only (compressed-tensors 0.20, transformers 5.24).
    options = {} if inputs else {"quantization_config": transformers.CompressedTensorsConfig(dequantize=True)}
    model = transformer(tmp_path / "made", **options)
    tokens = torch.arange(32).reshape(2, 16)
    with torch.no_grad():
        found = model(tokens, output_hidden_states=True).hidden_states[-1].numpy()
    weights = quantised_weights(made.model)
    for name, module in model.named_modules():
        if name in told.schemes:
            assert np.array_equal(module.weight.detach().numpy(), weights[name + ".weight"]), name
    feed = {"input_ids": tokens.numpy(), "attention_mask": np.ones((2, 16), np.int64)}
    [expected] = OrtRunner(optimize=False).run(made.model, [feed])
    error = np.linalg.norm(found - next(iter(expected.values()))) / np.linalg.norm(found)
    # Float inputs: the same numbers summed in another order. Quantised ones: values next to a border of the grid land
    # on either side of it, and per token is not per tensor, so some steps of 1/127 of the range differ.
    assert error < (2e-2 if inputs else 1e-5)


PIPELINES = {
    "quant{smooth=0.5}": 1e-5,
    "quant{weight=float8}": 1e-5,
    "quant{weight=int4,rounding=gptq,form=nbits}": 1e-5,
    "quant{format=dynamic}": 1e-2,  # one scale per token there, per tensor here
}


@pytest.mark.slow
@pytest.mark.skipif(not LOADERS, reason="compressed-tensors is not installed")
@pytest.mark.parametrize("quant", PIPELINES)
def test_what_passes_write_runs_alike_in_transformers(tmp_path: Path, sources, quant):
    import torch

    source = sources("plain")
    tokens = np.random.default_rng(0).integers(0, 128, (16, 16))
    np.savez(tmp_path / "data.npz", input_ids=tokens, attention_mask=np.ones_like(tokens))
    made = compile_model(exported(source), f"simplify,fuse,{quant}", data=tmp_path / "data.npz").compiled
    assert len(checkpoint.write(made, source, tmp_path / "made").schemes) == 14
    with torch.no_grad():
        found = transformer(tmp_path / "made")(torch.from_numpy(tokens), output_hidden_states=True).hidden_states[-1]
    feed = {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}
    [expected] = OrtRunner(optimize=False).run(made.model, [feed])
    error = np.linalg.norm(found.numpy() - next(iter(expected.values()))) / np.linalg.norm(found)
    assert error < PIPELINES[quant]


@pytest.mark.slow
def test_layers_that_are_no_linear_are_named(tmp_path: Path):
    source = tiny(tmp_path / "source", "gpt2")
    with pytest.raises(InputError, match="it is a Conv1D, and engines look for Linear"):
        checkpoint.write(compiled(source, "int4"), source, tmp_path / "made")
    assert not (tmp_path / "made").exists()
