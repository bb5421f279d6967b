"""One description stands for all layers that are built alike, and for no others."""

from __future__ import annotations

import pytest

from eopt.ir.repeats import repeats
from eopt.ir.text_parse import loads


def layer(number: int, source: str, kind: str = "Relu", weight: str = "w", axis: int = -1) -> str:
    return f"""layer.{number}: Layer {{
  a{number}: float32[n, 4] = MatMul({source}, {weight}{number})
  act: Act {{
    b{number}: float32[n, 4] = {kind}(a{number})
  }}
  s{number}: float32[n, 4] = Softmax(b{number}) {{axis: {axis}}}
  y{number}: float32[n, 4] = Add(s{number}, {source})
}}
"""


def model(*layers: str, output: str, weights: int = 3, shape: str = "4, 4"):
    text = 'model {"": 20}\ninput x: float32[n, 4]\n'
    text += "".join(f"weight w{i}: float32[{shape}] = normal({i})\n" for i in range(weights))
    return loads(text + "".join(layers) + f"output {output}: float32[n, 4]\n")


def test_equal_layers_are_one_description():
    three = model(layer(0, "x"), layer(1, "y0"), layer(2, "y1"), output="y2")
    ((first, members),) = repeats(three).items()
    assert [three.node(uid).name for uid in members] == ["layer.0", "layer.1", "layer.2"]
    assert first == members[0]


@pytest.mark.parametrize("changed", [layer(1, "y0", kind="Tanh"), layer(1, "y0", axis=0), layer(1, "x")])
def test_another_operator_attribute_or_wiring_is_another_layer(changed: str):
    ends = layer(2, "y1") if "y0" in changed else layer(2, "y1").replace("Add(s2, y1)", "Add(s2, y0)")
    assert all(len(members) < 3 for members in repeats(model(layer(0, "x"), changed, ends, output="y2")).values())


def test_other_weight_shapes_are_another_layer():
    text = 'model {"": 20}\ninput x: float32[n, 4]\nweight w0: float32[4, 4] = normal(0)\n'
    text += (
        "weight w1: float32[4] = normal(1)\n" + layer(0, "x") + layer(1, "y0").replace("[n, 4] = MatMul", "? = MatMul")
    )
    assert not repeats(loads(text + "output y1: float32[n, 4]\n"))
