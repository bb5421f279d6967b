"""Bad input: one line naming what, where and what to do, the documented exit code, and existing outputs untouched."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from eopt.tools.cli import main

USAGE, BAD_INPUT, INTERRUPTED = 2, 3, 130


@pytest.fixture
def model(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    weight = numpy_helper.from_array(rng.standard_normal((64, 64)).astype("f"), "w")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    info = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 64])
    graph = helper.make_graph(nodes, "g", [info("x")], [info("y")], [weight])
    path = tmp_path / "model.onnx"
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path.write_bytes(proto.SerializeToString())
    return path


def failing(capsys, *arguments: object) -> tuple[int, str]:
    """Exit code and the single error line of a command that must fail."""
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("eopt: ")
    assert err.count("\n") == 1, err
    return code, err


def compiling(capsys, model: Path, *more: object) -> tuple[int, str]:
    """Compile into a folder that already holds outputs, and check that they survive."""
    out = model.parent / "out"
    out.mkdir()
    for name in ("model.onnx", "report.html", "report.json"):
        (out / name).write_text("previous")
    result = failing(capsys, "compile", model, "--out", out, *more)
    assert {path.name: path.read_text() for path in out.iterdir()} == dict.fromkeys(
        ("model.onnx", "report.html", "report.json"), "previous"
    )
    return result


def test_missing_file(capsys, tmp_path):
    code, err = failing(capsys, "predict", tmp_path / "nowhere.onnx", "--target", "nvidia-l4")
    assert code == BAD_INPUT
    assert "nowhere.onnx: no such file" in err


@pytest.mark.parametrize("content", [b"", b"hello, this is no model", b"\x00" * 100, b"\x08\x07"])
def test_not_onnx(capsys, tmp_path, content):
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    code, err = failing(capsys, "inspect", path)
    assert code == BAD_INPUT
    assert "bad.onnx" in err


def test_truncated(capsys, model):
    data = model.read_bytes()
    model.write_bytes(data[: len(data) // 2])
    code, err = failing(capsys, "inspect", model)
    assert code == BAD_INPUT
    assert "model.onnx: truncated" in err


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "link.bin"])
def test_external_data_outside_the_folder(capsys, tmp_path, location):
    (tmp_path / "secret").write_bytes(bytes(4096))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link.bin").symlink_to(tmp_path / "secret")
    weight = TensorProto(name="w", data_type=1, dims=[1024], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value=location)
    info = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1024])
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [info("x")], [info("y")], [weight])
    (folder / "m.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    code, err = failing(capsys, "inspect", folder / "m.onnx")
    assert code == BAD_INPUT
    assert "m.onnx: initializer 'w'" in err


def test_a_pickle_is_refused(capsys, tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(b"\x80\x04.")
    code, err = failing(capsys, "inspect", path)
    assert code == BAD_INPUT
    assert "can run code" in err


def test_pt2_needs_trust(capsys, tmp_path):
    path = tmp_path / "model.pt2"
    path.write_bytes(b"PK")
    code, err = failing(capsys, "inspect", path)
    assert code == USAGE
    assert "--trust" in err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--passes", "simplfy"), "did you mean 'simplify'?"),
        (("--passes", "fuse{rule=x}"), "has no option 'rule'"),
        (("--passes", "fuse{"), "closing brace"),
        (("--passes", "simplify", "--target", "nvidia-h1000"), "nvidia-h100"),
        (("--passes", "simplify", "--executor", "tensorrt"), "--executor needs --target"),
        (("--passes", "simplify", "--max-loss", "0.1"), "--max-loss needs --metric"),
        (("--passes", "simplify", "--target", "nvidia-l4", "--bind", "n"), "--bind n: expected NAME=VALUE"),
        (("--passes", "simplify", "--batch", "0"), "no positive integer"),
        (("--passes", "simplify", "--colour"), "--colour"),
        (("--passes", "quant"), "--data"),
    ],
)
def test_usage(capsys, model, arguments, expected):
    code, err = compiling(capsys, model, *arguments)
    assert code == USAGE
    assert expected in err


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"image": np.zeros((4, 64), "f")}, "wrong names (missing ['x']; unknown ['image'])"),
        ({"x": np.zeros((4, 32), "f")}, "'x' has shape [4, 32]"),
        ({"x": np.zeros((4, 64), "d")}, "'x' is float64, not float32"),
        ({"x": np.full((4, 64), np.nan, "f")}, "NaN or infinity, first in sample 0"),
        ({"x": np.zeros((0, 64), "f")}, "number of samples"),
        ({"x": np.zeros((4, 64), "f"), "labels": np.zeros(3)}, "number of samples"),
    ],
)
def test_calibration_data(capsys, model, arrays, expected):
    path = model.parent / "data.npz"
    np.savez(path, **arrays)
    code, err = compiling(capsys, model, "--passes", "simplify", "--data", path)
    assert code == BAD_INPUT
    assert "data.npz" in err
    assert expected in err


def test_calibration_data_that_is_a_pickle(capsys, model):
    path = model.parent / "data.npz"
    np.savez(path, x=np.array([{"a": 1}], dtype=object))
    code, err = compiling(capsys, model, "--passes", "simplify", "--data", path)
    assert code == BAD_INPUT
    assert "no readable .npz" in err


def test_disk_full(capsys, model, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    code, err = compiling(capsys, model, "--passes", "simplify")
    assert code == BAD_INPUT
    assert "No space left on device" in err


def test_output_folder_cannot_be_made(capsys, model):
    blocker = model.parent / "file"
    blocker.write_text("")
    code, err = failing(capsys, "compile", model, "--passes", "simplify", "--out", blocker / "out")
    assert code == BAD_INPUT
    assert "cannot be created" in err


def test_interrupted_write_leaves_the_old_output(capsys, model, monkeypatch):
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    code, err = compiling(capsys, model, "--passes", "simplify")
    assert code == INTERRUPTED
    assert "interrupted" in err


def test_interrupt_signal_exits_130(tmp_path, model):
    waiting = "import time, pathlib; pathlib.Path('ready').touch(); time.sleep(60)\ndef make(): pass"
    (tmp_path / "slow_module.py").write_text(waiting)
    command = [sys.executable, "-m", "eopt", "inspect", "slow_module:make"]
    # where the tests run in the background of a shell the signal is ignored, which a child would inherit
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not (tmp_path / "ready").exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == INTERRUPTED
    assert "interrupted" in err
