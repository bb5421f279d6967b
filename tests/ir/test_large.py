"""Models larger than memory: mapped, never copied, written in shards that appear together."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from eopt.ir import onnx_io, onnx_out
from eopt.ir.errors import OutputError

ROOT = Path(__file__).parents[2]


def chain(count: int, width: int = 32) -> onnx.ModelProto:
    generator = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(generator.standard_normal((width, width)).astype("f"), f"w{i}") for i in range(count)
    ]
    nodes = [helper.make_node("MatMul", [f"v{i}", f"w{i}"], [f"v{i + 1}"]) for i in range(count)]
    info = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width])
    graph = helper.make_graph(nodes, "chain", [info("v0")], [info(f"v{count}")], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.fixture
def model(tmp_path: Path):
    path = tmp_path / "source.onnx"
    path.write_bytes(chain(5).SerializeToString())
    return onnx_io.read(path)


def test_shards_hold_whole_tensors_and_read_back_equal(model, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    onnx_out.write(model, out / "m.onnx", shard_bytes=2 * 32 * 32 * 4)
    files = sorted(path.name for path in out.iterdir())
    assert files == ["m.onnx", *(f"m.onnx-{n:05}-of-00003.data" for n in (1, 2, 3))]
    again = onnx_io.read(out / "m.onnx")
    for name in model.weights:
        assert np.array_equal(again.weights.array(name), model.weights.array(name))
    onnx.checker.check_model(str(out / "m.onnx"))
    offsets = {entry.value for w in onnx.load(out / "m.onnx", load_external_data=False).graph.initializer
               for entry in w.external_data if entry.key == "offset"}  # fmt: skip
    assert offsets == {"0", "4096"}, "tensors start on a page"


def test_a_tensor_above_the_size_has_a_shard_of_its_own(model, tmp_path):
    onnx_out.write(model, tmp_path / "m.onnx", shard_bytes=1)
    assert len(list(tmp_path.glob("m.onnx-*-of-00005.data"))) == 5


def test_shards_appear_together_or_not_at_all(model, tmp_path, monkeypatch):
    out = tmp_path / "m.onnx"
    onnx_out.write(model, out, shard_bytes=4096)
    before = {path: path.read_bytes() for path in tmp_path.glob("m.onnx*")}
    monkeypatch.setattr(onnx_out, "_encoded", failing)
    changed = model.with_weights({"w0": np.zeros((32, 32), "f")})
    with pytest.raises(OutputError):
        onnx_out.write(changed, out, shard_bytes=4096)
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path in before} == before
    assert not list(tmp_path.glob(".m.onnx*")), "no temporary file is left"


def failing(*arguments: object):
    raise OSError(28, "No space left on device")


@pytest.mark.slow
def test_weights_beyond_memory_are_never_resident(tmp_path):
    """Two gigabytes of weights pass simplify, fuse, predict and a sharded write in a fraction of that."""
    command = [sys.executable, str(ROOT / "benchmarks/ir/large.py"), "--gigabytes", "2", "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    grown = float(done.stdout.splitlines()[-1].split()[-2])
    assert grown < 500, done.stdout
