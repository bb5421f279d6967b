"""GPTQ beside what the paper derives it from, and beside rounding to the nearest."""

from __future__ import annotations

import numpy as np
import pytest

from eopt.backends.ort import OrtRunner
from eopt.ir.errors import InputError
from eopt.passes.quant import candidates, gptq, weight_only
from eopt.passes.quant.blocks import Blocks, BlockWeight, round_to_nearest
from eopt.passes.quant.gptq import Hessian

SEEDS = range(4)
SPECS = (Blocks(4, 32), Blocks(4, 32, symmetric=False), Blocks(4, None), Blocks(8, 16, clip=False))


def correlated(seed: int, k: int, samples: int = 512) -> np.ndarray:
    """Activations with a falling spectrum and inputs of unlike size, as in transformers."""
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((k, k)) * np.exp(-np.arange(k) * 8 / k)
    rows = rng.standard_normal((samples, k)) @ mix.T + 0.3 * rng.standard_normal((samples, k))
    return (rows * np.exp(rng.standard_normal(k))).astype(np.float32)


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def seen(*activations: np.ndarray) -> np.ndarray:
    hessian = Hessian(activations[0].shape[-1])
    for batch in activations:
        hessian.update(batch)
    return hessian.matrix


def error(x: np.ndarray, weight: np.ndarray, result: BlockWeight) -> float:
    return float(np.linalg.norm(x @ (weight - result.dequantised())))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("spec", SPECS)
def test_products_change_less_than_by_rounding_to_the_nearest(seed: int, spec: Blocks):
    x, weight = correlated(seed, 96, 1024), normal(seed + 100, 96, 40)
    calibration, heldout = x[:512], x[512:]
    solved = gptq.solve(weight, seen(calibration), spec)
    nearest = round_to_nearest(weight, spec)
    assert error(calibration, weight, solved) < 0.6 * error(calibration, weight, nearest)
    assert error(heldout, weight, solved) < 0.8 * error(heldout, weight, nearest)


@pytest.mark.parametrize("seed", SEEDS)
def test_rows_are_what_optimal_brain_quantisation_gives(seed: int):
    """Equation 2 of the paper, with the inverse over the remaining rows computed anew for each row."""
    spec, k = Blocks(4, 16), 150  # more rows than are brought up to date together
    hessian, weight = seen(correlated(seed, k)), normal(seed, k, 6)
    solved = gptq.solve(weight, hessian, spec)
    damped = hessian.astype(float) + np.eye(k) * 0.01 * np.diagonal(hessian).mean()
    rest, left = weight.astype(float), list(np.argsort(-np.diagonal(damped)))
    expected = np.zeros_like(solved.integers)
    while left:
        row, inverse = left[0], np.linalg.inv(damped[np.ix_(left, left)])
        scale = solved.scales[row // 16].astype(float)
        expected[row] = np.clip(np.rint(rest[row] / scale), -8, 7)
        rest[left] -= np.outer(inverse[:, 0] / inverse[0, 0], rest[row] - expected[row] * scale)
        left.pop(0)
    # float32 beside float64: a value that lies on a tie may go either way, and then those that make up for it as well
    assert np.mean(expected != solved.integers) < 0.01


@pytest.mark.parametrize("spec", SPECS)
def test_unrelated_inputs_give_rounding_to_the_nearest(spec: Blocks):
    weight = normal(0, 160, 24)
    solved, nearest = gptq.solve(weight, np.eye(160, dtype=np.float32), spec), round_to_nearest(weight, spec)
    np.testing.assert_array_equal(solved.integers, nearest.integers)
    np.testing.assert_array_equal(solved.scales, nearest.scales)


@pytest.mark.parametrize("dead", [[3, 40], list(range(64))])
def test_inputs_that_are_never_used_are_rounded_to_the_nearest(dead: list[int]):
    x, weight, spec = correlated(0, 64), normal(1, 64, 8), Blocks(4, 32, clip=False)
    x[:, dead] = 0
    solved, nearest = gptq.solve(weight, seen(x), spec), round_to_nearest(weight, spec)
    np.testing.assert_array_equal(solved.integers[dead], nearest.integers[dead])
    assert np.isfinite(solved.dequantised()).all()


def test_fewer_samples_than_inputs_are_enough():
    x, weight = correlated(0, 128, samples=8), normal(1, 128, 8)
    solved, nearest = gptq.solve(weight, seen(x), Blocks()), round_to_nearest(weight, Blocks())
    assert error(x, weight, solved) < 0.1 * error(x, weight, nearest)


def test_batches_add_up():
    x = correlated(0, 32)
    # the same sums in another order
    np.testing.assert_allclose(seen(x[:100].reshape(4, 25, 32), x[100:]), seen(x), rtol=1e-4, atol=1e-2)


def test_large_triangles_are_inverted():
    hessian = seen(correlated(0, 300))
    factor = gptq.inverse_factor(hessian).astype(float)
    damped = hessian + np.eye(300) * 0.01 * np.diagonal(hessian).mean()
    np.testing.assert_array_equal(factor, np.triu(factor))
    # the factor is rounded to float32 (6e-8); the damped matrix has a condition of at most 300 / 0.01
    np.testing.assert_allclose(factor.T @ factor @ damped, np.eye(300), atol=1e-2)


def test_products_that_read_one_activation_share_its_hessian(build):
    graph = "(float[N,32] x) => (float[N,8] y) { q = MatMul(x, v) k = MatMul(x, w) s = Add(q, k) y = MatMul(s, u) }"
    model = build(graph, v=normal(0, 32, 8), w=normal(1, 32, 8), u=normal(2, 8, 8))
    anchors, _ = candidates.find(model, ("MatMul",), ())
    hessians = gptq.hessians(anchors, {"v": 32, "w": 32, "u": 8})
    assert {name: len(hessian.matrix) for name, hessian in hessians.items()} == {"x": 32, "s": 8}
    x = correlated(0, 32)
    runner = OrtRunner(threads=1)
    (result,) = runner.run(model, [{"x": x}], ["s"])
    for name, values in {"x": x, "s": result["s"]}.items():
        hessians[name].update(values)
    off = {}
    for label, solve in {"nearest": None, "gptq": gptq.solver(anchors, hessians, Blocks(4, 16))}.items():
        after = weight_only.quantise(model, anchors, Blocks(4, 16), solve=solve)
        (changed,) = runner.run(after, [{"x": x}])
        off[label] = np.linalg.norm(changed["y"] - result["y"])
    assert off["gptq"] < off["nearest"]


def test_a_tied_weight_serves_all_of_its_activations(build):
    model = build("(float[N,16] x) => (float[N,16] y) { h = MatMul(x, w) y = MatMul(h, w) }", w=normal(0, 16, 16))
    anchors, _ = candidates.find(model, ("MatMul",), ())
    hessians = gptq.hessians(anchors, {"w": 16})
    hessians["x"].update(correlated(0, 16))
    hessians["h"].update(correlated(1, 16))
    solve = gptq.solver(anchors, hessians, Blocks(4, 16))
    both = gptq.solve(normal(0, 16, 16), hessians["x"].matrix + hessians["h"].matrix, Blocks(4, 16))
    np.testing.assert_array_equal(solve("w", normal(0, 16, 16)).integers, both.integers)


def test_activations_that_are_not_finite_are_named(build):
    model = build("(float[N,16] x) => (float[N,4] y) { y = MatMul(x, w) }", w=normal(0, 16, 4))
    anchors, _ = candidates.find(model, ("MatMul",), ())
    hessians = gptq.hessians(anchors, {"w": 16})
    hessians["x"].update(np.full((1, 16), np.inf, np.float32))
    with pytest.raises(InputError, match=r"'w'.*NaN or infinity in 'x'"):
        gptq.solver(anchors, hessians, Blocks())("w", normal(0, 16, 4))
