"""What only moves or selects values does so with their integers; with nothing in between, a pair cancels."""

from __future__ import annotations

from dataclasses import replace

from eopt.ir.node import Op
from eopt.passes.lower_qop import grids
from eopt.passes.rewrite import Matcher, Replacement, rule

MOVES = ("MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze")


@rule("integer-moves", "QuantizeLinear", exempt=True)
def integer_moves(m: Matcher, quantize: Op) -> Replacement:
    """DequantizeLinear, any number of operators that move, QuantizeLinear to the same grid.

    Exact, as each value is one of the integers, and exempt from the gate: two conversions go and what stays moves a
    quarter of the bytes.
    """
    result = grids.quantised(m, quantize)
    moves: list[Op] = []
    above = m.producer(quantize, 0, ("DequantizeLinear", *MOVES))
    while above.op != "DequantizeLinear":
        m.only_used(above.output, 1, above)
        m.need(len(above.outputs) == 1, "the places of the largest values are used", above)
        moves.append(above)
        above = m.producer(above, 0, ("DequantizeLinear", *MOVES))
    first = moves[-1] if moves else quantize
    source = grids.dequantised(m, first, 0)
    m.need(source.same_grid(m, result), "what is read and what is written lie on different grids", quantize)
    old = grids.spent(m, [*moves, quantize], [source])
    if not moves:
        return Replacement(old, [], renames={quantize.output: source.value.id})
    kind = result.value.dtype
    new = [replace(op, uid=0, outputs=(replace(op.outputs[0], dtype=kind),)) for op in reversed(moves)]
    new[0] = replace(new[0], inputs=(source.value.id, *new[0].inputs[1:]))
    new[-1] = replace(new[-1], outputs=quantize.outputs)
    return Replacement(old, new)
