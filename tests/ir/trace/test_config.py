"""Architectures from their configuration alone: what is traced is what the modules would compute."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from immutables import Map

from eopt.backends import executor, target
from eopt.costmodel.tree import Situation, price
from eopt.ir import onnx_io
from eopt.ir.dims import late
from eopt.ir.errors import InputError, UsageError
from eopt.ir.model import Model
from eopt.ir.node import Region
from eopt.ir.ops import Unit, spec, view
from eopt.ir.repeats import repeats
from eopt.ir.verify import verify

sys.path.append(str(Path(__file__).parents[2] / "models"))

pytestmark = pytest.mark.slow

SMALL = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 128}
TEXT = {**SMALL, "vocab_size": 1000, "max_position_embeddings": 256}
GROUPED = {**TEXT, "num_key_value_heads": 2, "dtype": "bfloat16"}
ARCHITECTURES = {
    "bert": ("BertModel", TEXT, ["forward"]),
    "gpt2": ("GPT2LMHeadModel", {"n_embd": 64, "n_layer": 3, "n_head": 4, "vocab_size": 1000}, ["prefill", "decode"]),
    "llama": ("LlamaForCausalLM", GROUPED, ["prefill", "decode"]),
    "mistral": ("MistralForCausalLM", GROUPED, ["prefill", "decode"]),
    "mixtral": ("MixtralForCausalLM", {**GROUPED, "num_local_experts": 4}, ["prefill", "decode"]),
    "vit": ("ViTForImageClassification", {**SMALL, "image_size": 32, "patch_size": 8}, ["forward"]),
    "resnet": ("ResNetForImageClassification", {"embedding_size": 16, "hidden_sizes": [32, 64], "depths": [2, 2]},
               ["forward"]),
    "mobilenet_v2": ("MobileNetV2ForImageClassification", {}, ["forward"]),
    "t5": ("T5ForConditionalGeneration", {"d_model": 64, "d_ff": 128, "num_layers": 3, "d_kv": 16, "num_heads": 4},
           ["prefill", "decode"]),
    "whisper": ("WhisperForConditionalGeneration", {"d_model": 64, "encoder_layers": 3, "decoder_layers": 3,
                "encoder_attention_heads": 4, "decoder_attention_heads": 4}, ["prefill", "decode"]),
    "clip": ("CLIPModel", {}, ["forward"]),
}  # fmt: skip


def traced(folder: Path, kind: str, fields: dict, cls: str, **bind: int):
    from eopt.ir.trace import config

    path = folder / "config.json"
    path.write_text(json.dumps({"model_type": kind, "architectures": [cls], **fields}))
    return config.read(path, bind)


def matrix_flops(model: Model, **bindings: int) -> float:
    analysed = model.get(late)
    bound = analysed.bound(bindings)
    works = []
    for op in analysed.model.leaves():
        seen, described = view(analysed.model, op, bound), spec(op.op, op.domain)
        works += [described.work(seen)] if described and seen else []
    return sum(work.flops for work in works if work.unit is Unit.MATRIX)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_phase_is_priced(tmp_path, kind):
    cls, fields, phases = ARCHITECTURES[kind]
    found = traced(tmp_path, kind, fields, cls, batch=2)
    assert (found.name, list(found.phases)) == (cls, phases)
    for model in found.phases.values():
        verify(model)
        priced = price(model, Situation(target.load("nvidia-h100-sxm"), executor.load("torch"), Map()))
        assert not priced.unknown
        assert priced.energy_j.mid > 0


@pytest.mark.parametrize("kind", ["llama", "gpt2", "bert", "vit", "whisper"])
def test_layers_are_one_description(tmp_path, kind):
    cls, fields, _ = ARCHITECTURES[kind]
    model = next(iter(traced(tmp_path, kind, fields, cls).phases.values()))
    groups = [[model.node(uid) for uid in uids] for uids in repeats(model).values()]
    assert any(len(group) == 3 and isinstance(group[0], Region) for group in groups)


def test_arithmetic_is_that_of_the_parameters(tmp_path):
    """Every matrix parameter multiplies every token once: 2 flops each, attention comes on top."""
    found = traced(tmp_path, "llama", GROUPED, "LlamaForCausalLM", batch=2, seq=32, past=100)
    hidden, layers, heads, size = 64, 3, 4, 16
    parameters = layers * (hidden * hidden * 2 + hidden * 32 * 2 + 3 * hidden * 128) + hidden * 1000
    # 2 (d_q k + d_v) flops and 14 for the softmax on each pair; a causal prompt leaves half of them
    pair = 4 * size + 14
    for phase, tokens, pairs in (("prefill", 32, 32 * 33 / 2), ("decode", 1, 101)):
        # a prompt's logits are computed for all tokens here, as the plain forward pass does
        expected = 2 * 2 * parameters * tokens + 2 * layers * heads * pairs * pair
        assert matrix_flops(found.phases[phase]) == pytest.approx(expected, rel=0.01)


def test_a_token_costs_more_the_longer_the_cache(tmp_path):
    costs = []
    for past in (16, 4096):
        fields = {**GROUPED, "max_position_embeddings": 8192}
        decode = traced(tmp_path, "llama", fields, "LlamaForCausalLM", batch=8, past=past).phases["decode"]
        assert decode.value("past.0.keys").shape == (8, 2, past, 16)
        costs.append(price(decode, Situation(target.load("nvidia-l4"), executor.load("torch"), Map())).energy_j.mid)
    assert costs[1] > costs[0]


@pytest.mark.parametrize(("name", "bind"), [("bert", {"sequence": 16}), ("vit", {}), ("resnet", {})])
def test_it_is_the_model_that_would_be_exported(tmp_path, name, bind):
    import zoo

    settings = {
        "bert": {"vocab_size": 1000, "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
                 "intermediate_size": 512},
        "vit": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256,
                "image_size": 32, "patch_size": 8},
        "resnet": {"embedding_size": 16, "hidden_sizes": [32, 64], "depths": [2, 2], "layer_type": "bottleneck"},
    }[name]  # fmt: skip
    cls = ARCHITECTURES[name][0]
    extents = {"seq": 16} if name == "bert" else {"image": 64} if name == "resnet" else {}
    ours = traced(tmp_path, name, settings, cls, batch=2, **extents).phases["forward"]
    exported = onnx_io.read(zoo.zoo_model(name))
    # the exporter writes attention out, so its softmax is vector work there; the pooler of BERT is left out there
    assert matrix_flops(ours) == pytest.approx(matrix_flops(exported, batch=2, **bind), rel=0.05)


def test_weights_are_shapes_only(tmp_path):
    model = traced(tmp_path, "llama", GROUPED, "LlamaForCausalLM").phases["prefill"]
    name = "model.layers.0.mlp.up_proj.weight:64x128"
    assert model.weights.nbytes(name) == 64 * 128 * 2
    with pytest.raises(UsageError, match="architecture alone"):
        model.weights.array(name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[]", "none of the architectures"),
        ('{"model_type": "nothing"}', "none of the architectures"),
        ('{"model_type": "llama", "num_hidden_layers": 100000}', "more than 2048"),
        ('{"model_type": "llama", "hidden_size": "wide"}', "refuses this configuration|cannot be traced"),
        ('{"model_type": "' + "a" * (1 << 20) + '"}', "larger than"),
    ],
)
def test_bad_configurations(tmp_path, content, message):
    from eopt.ir.trace import config

    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        config.read(path, {})


def test_a_name_that_means_nothing(tmp_path):
    with pytest.raises(UsageError, match="has batch, seq"):
        traced(tmp_path, "bert", TEXT, "BertModel", past=3)


def test_code_named_in_a_configuration_is_not_run(tmp_path):
    fields = {**TEXT, "auto_map": {"AutoModel": "evil--repository.Model"}}
    assert traced(tmp_path, "bert", fields, "os.system").name == "BertModel"
