"""`eopt targets check`, `add` and `show`, and the clock and power of a target, as users type them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from eopt.backends import target
from eopt.tools.cli import main
from eopt.tools.predict import predict_model

BOARD = "name: my-board\nvendor: me\nmodel: X1\nkind: gpu\narch: a\nmemory: {bandwidth_gb_per_s: 100}\n"
RATE = "peak: {vector: {float32: 3}}\n"
CNN = Path(__file__).parents[2] / "examples/cnn/model.onnx"


@pytest.fixture
def sheet(tmp_path: Path) -> Path:
    path = tmp_path / "board.yaml"
    path.write_text("# mine\n" + BOARD + RATE)
    return path


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch) -> Iterator[Path]:
    folder = tmp_path / "config" / "targets"
    monkeypatch.setenv("EOPT_TARGETS", str(folder))
    target.load.cache_clear()
    yield folder
    target.load.cache_clear()


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_check_says_what_would_be_estimated(capsys, sheet):
    code, out, _ = run(capsys, "targets", "check", sheet)
    assert code == 0
    assert "my-board can be used" in out
    for field in ("llc_bytes", "process_nm", "idle_w", "within a factor"):
        assert field in out
    assert "bandwidth_bytes_per_s\n" not in out


def test_check_of_several_names_file_and_field_of_the_bad_one(capsys, sheet, tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text(BOARD + "tdp_w: hot\n")
    code, out, err = run(capsys, "targets", "check", bad, sheet)
    assert code == 3
    assert "bad.yaml: tdp_w: 'hot' is no sensible number" in err.replace("\n", "")
    assert "my-board can be used" in out
    code, out, _ = run(capsys, "targets", "check", bad, sheet, "--json")
    first, second = json.loads(out)
    assert code == 3
    assert (first["ok"], second["ok"]) == (False, True)
    assert "tdp_w" in first["error"]
    assert second["estimated"]["tdp_w"]["factor"] > 1


def test_check_of_a_sheet_that_lacks_what_nothing_can_be_estimated_from(capsys, tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text(BOARD)
    code, _, err = run(capsys, "targets", "check", bad)
    assert code == 3
    assert "my-board: peak.vector.float32: missing" in err


def test_an_added_sheet_is_found_by_name(capsys, sheet, own):
    assert run(capsys, "targets", "add", sheet)[0] == 0
    assert (own / "my-board.yaml").read_text() == sheet.read_text(), "comments and all"
    assert target.load("my-board").vector == {"float32": 3e12}
    assert "my-board" in target.names()
    assert "my-board" not in target.shipped()
    assert "my-board" in run(capsys, "targets", "find", "board")[1]
    assert run(capsys, "targets", "add", sheet, "--json")[0] == 0, "again: an edited sheet replaces its older self"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("my-board", "nvidia-l4", "'nvidia-l4' is that of a shipped sheet; give yours another, such as my-nvidia-l4"),
        ("my-board", "auto", "'auto' is that of a shipped sheet"),
        ("# mine", "aliases: [nvidia/nvidia-t4]", "'nvidia/nvidia-t4' is an alias of nvidia-t4"),
        ("my-board", "../evil", "must be lower-case letters"),
        ("my-board", "My-Board", "must be lower-case letters"),
    ],
)
def test_names_that_cannot_be_had(capsys, sheet, own, old, new, message):
    sheet.write_text(sheet.read_text().replace(old, new))
    code, _, err = run(capsys, "targets", "add", sheet)
    assert code == 3
    assert message in err
    assert not own.exists()


def test_a_name_of_another_sheet_of_ones_own(capsys, sheet):
    run(capsys, "targets", "add", sheet)
    sheet.write_text(sheet.read_text().replace("my-board", "your-board") + "aliases: [my-board]\n")
    code, _, err = run(capsys, "targets", "add", sheet)
    assert code == 3
    assert "'my-board' is taken by my-board" in err


def test_a_sheet_put_there_by_hand_under_another_name(capsys, sheet, own):
    own.mkdir(parents=True)
    (own / "other.yaml").write_text(sheet.read_text())
    code, _, err = run(capsys, "targets", "show", "other")
    assert code == 3
    assert "name: 'my-board' is not that of the file" in err


def test_a_folder_that_cannot_be_made(capsys, sheet, own, monkeypatch):
    monkeypatch.setenv("EOPT_TARGETS", str(sheet / "below"))
    code, _, err = run(capsys, "targets", "add", sheet)
    assert code == 3
    assert "cannot be created" in err


def test_without_a_variable_the_folder_is_in_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("EOPT_TARGETS")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert target.own_folder() == tmp_path / ".config/eopt/targets"


def test_show_has_what_was_estimated(capsys):
    shown = json.loads(run(capsys, "targets", "show", "nvidia-l4", "--json")[1])
    assert shown["tdp_w"] == 72
    assert shown["estimated"]["idle_w"] == {"value": pytest.approx(9.36), "factor": 2.0}
    assert "estimated:" in run(capsys, "targets", "show", "nvidia-l4")[1]


def test_show_lists_what_executors_have_kernels_for_and_how_that_is_known(capsys):
    shown = json.loads(run(capsys, "targets", "show", "nvidia-l4", "--json")[1])["formats"]
    assert {"static-int8", "float8"} <= {row["format"] for row in shown["tensorrt"]}
    assert all(row["source"] for rows in shown.values() for row in rows)
    old = json.loads(run(capsys, "targets", "show", "nvidia-t4", "--json")[1])["formats"]
    assert "float8" not in {row["format"] for row in old["tensorrt"]}


def test_show_has_the_tvm_target(capsys, sheet):
    shown = json.loads(run(capsys, "targets", "show", "nvidia-l4", "--json")[1])
    assert (shown["tvm_target"]["kind"], shown["tvm_target"]["arch"]) == ("cuda", "sm_89")
    assert json.loads(run(capsys, "targets", "show", sheet, "--json")[1])["tvm_target"] is None


def test_show_and_check_of_a_tag_without_a_sheet(capsys):
    shown = json.loads(run(capsys, "targets", "show", "nvidia/geforce-gtx-960", "--json")[1])
    assert shown["name"] == "nvidia-geforce-gtx-960"
    assert "vector" in shown["imputed"]
    assert shown["factors"]["bandwidth_bytes_per_s"] > 2
    assert shown["estimated"]["bandwidth_bytes_per_s"]["factor"] > 1
    code, out, _ = run(capsys, "targets", "check", "nvidia/geforce-gtx-960")
    assert code == 0
    assert "vector.float32" in out and "bandwidth_bytes_per_s" in out


def test_a_tvm_target_nothing_is_known_of(capsys):
    code, _, err = run(capsys, "targets", "show", "qcom/hexagon-v75")
    assert code == 2
    assert "peak.vector.float32 are missing" in err.replace("\n", " ")


def test_a_prediction_on_a_tvm_target(capsys):
    code, out, _ = run(capsys, "predict", CNN, "--target", "llvm -mcpu=znver4 -num-cores=8", "--json")
    situation = json.loads(out)["situation"]
    assert code == 0
    assert situation["target"] == "cpu-amd-epyc-9004-8core"
    assert "bandwidth_bytes_per_s" in situation["imputed"]


@pytest.mark.parametrize("action", ["show", "find", "add"])
def test_how_many_names(capsys, action):
    assert run(capsys, "targets", action)[0] == 2
    assert run(capsys, "targets", action, "a", "b")[0] == 2


def test_a_prediction_at_a_clock_and_a_cap(capsys):
    at_a100 = ("predict", CNN, "--target", "nvidia-a100-80gb-sxm", "--batch", 256, "--json")
    free = json.loads(run(capsys, *at_a100)[1])
    code, out, _ = run(capsys, *at_a100, "--clock", 1005, "--power-cap", 250)
    held = json.loads(out)
    assert code == 0
    assert (free["situation"]["clock_mhz"], free["situation"]["power_cap_w"]) == (None, None)
    assert (held["situation"]["clock_mhz"], held["situation"]["power_cap_w"]) == (1005, 250)
    assert held["before"]["latency_s"]["mid"] > free["before"]["latency_s"]["mid"]
    assert any("rates at 1005 MHz" in warning for warning in held["warnings"])


def test_a_clock_and_a_cap_in_the_library(capsys):
    _, situation = predict_model(CNN, "nvidia-l4", clock_mhz=1000.0, power_cap_w=50.0)
    assert (situation.target.clock_hz, situation.target.tdp_w) == (1e9, 50)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--target", "nvidia-l4", "--clock", "fast"), "'fast' is no positive number"),
        (("--target", "nvidia-l4", "--clock", "0"), "'0' is no positive number"),
        (("--target", "nvidia-l4", "--clock", "5000"), "nvidia-l4 runs at"),
        (("--target", "nvidia-l4", "--power-cap", "5"), "nvidia-l4 needs"),
        (("--clock", "1000"), "--clock needs --target"),
        (("--power-cap", "50"), "--power-cap needs --target"),
    ],
)
def test_clocks_and_caps_that_cannot_be(capsys, arguments, message):
    code, _, err = run(capsys, "predict", CNN, *arguments)
    assert code == 2
    assert message in err
