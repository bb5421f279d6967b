"""Operator lists traced from configurations equal counts by hand."""

import pytest

from eopt.costmodel.datasets import traced
from eopt.costmodel.datasets.mlenergy_steps import divided

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not traced.available(), reason="torch or transformers missing")]
BERT = {"model_type": "bert", "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
        "intermediate_size": 256, "vocab_size": 100}  # fmt: skip
LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "num_hidden_layers": 5,
         "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 128, "vocab_size": 1000,
         "dtype": "float16"}  # fmt: skip


def _counts(operators: list[traced.Operator]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for operator in operators:
        counts[operator.op] = counts.get(operator.op, 0) + operator.count
    return counts


def test_operators_of_an_encoder() -> None:
    operators = traced.listed(traced.traced(BERT, seq=32))
    counts = _counts(operators)
    # a layer: queries, keys, values, output, two of the feed-forward
    assert counts["Gemm"] == 6 * 3
    assert counts["Attention"] == 3
    assert counts["LayerNormalization"] == 2 * 3 + 1
    assert counts["Gelu"] == 3
    assert {operator.math for operator in operators if operator.op == "Gemm"} == {"ieee"}


def test_extents_take_the_place_of_primes() -> None:
    rows = traced.rows("x", traced.listed(traced.traced(BERT, seq=32)), {traced.BATCH: 7})
    wide = [row for row in rows if row["op"] == "Gemm" and row["inputs"][1] == [64, 256]]
    assert [row["inputs"] for row in wide] == [[[7 * 32, 64], [64, 256], [256]]]
    assert wide[0]["count"] == 3


def test_autocast_narrows_products_and_casts_for_them() -> None:
    operators = traced.listed(traced.traced(BERT, seq=32), traced.Format(autocast=True))
    types = {operator.op: operator.dtype for operator in operators}
    assert (types["Gemm"], types["Attention"], types["LayerNormalization"]) == ("float16", "float16", "float32")
    casts = [operator for operator in operators if operator.op == "Cast"]
    # weights and biases of all products, and activations that a normalisation or the embedding leaves wide
    assert sum(operator.count for operator in casts if len(operator.inputs[0]) == 1) == 6 * 3


def test_a_decoding_step_has_all_layers_and_quantises_all_products_but_the_last() -> None:
    operators = traced.decoded(LLAMA, traced.Format(weights="int4"))
    products = [operator for operator in operators if operator.op == "MatMul"]
    assert sum(operator.count for operator in products) == 7 * 5 + 1
    assert [operator.inputs[1] for operator in products if operator.weight_dtype is None] == [(64, 1000)]
    attention = [operator for operator in operators if operator.op == "Attention"]
    assert [operator.count for operator in attention] == [5]
    assert attention[0].inputs[1] == (traced.BATCH, 2, traced.KEYS, 16)


def test_layers_from_two_equal_layers_traced() -> None:
    whole = traced.listed(traced.traced(LLAMA, "decode", seq=1, past=traced.KEYS - 1))
    assert _counts(traced.decoded(LLAMA)) == _counts(whole)


def test_training_runs_backward_and_updates_each_parameter() -> None:
    model = traced.traced(BERT, seq=32)
    forward, parameters = traced.listed(model), traced.parameters(model)
    step = traced.training(forward, parameters, passes=10)
    assert sum(operator.count for operator in step if operator.phase == "backward") == sum(o.count for o in forward)
    updates = [operator for operator in step if operator.op == "Add" and operator.inputs == ((64, 256), (64, 256))]
    assert sum(operator.count for operator in updates) == 10 * 3


def test_a_part_of_a_divided_model() -> None:
    part = divided(LLAMA, 4)
    assert (part["num_attention_heads"], part["num_key_value_heads"], part["intermediate_size"]) == (1, 1, 32)
    assert part["head_dim"] == 16
    assert part["hidden_size"] == 64
