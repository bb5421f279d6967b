"""The verbs, as a user types them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from eopt.tools.cli import VERBS, main

EXAMPLES = Path(__file__).parents[2] / "examples"
CNN = EXAMPLES / "cnn/model.onnx"


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(capsys, verb):
    with pytest.raises(SystemExit) as left:
        main([verb, "--help"])
    assert left.value.code == 0
    assert f"eopt {verb}" in capsys.readouterr().out


def test_help_lists_verbs_examples_and_exit_codes(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(verb in text for verb in VERBS)
    assert "exit codes" in text
    assert "examples" in text


def test_a_misspelt_verb(capsys):
    code, _, err = run(capsys, "complie", "x")
    assert (code, err) == (2, "eopt: no verb 'complie'; did you mean 'compile'?\n")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> Path:
    """The CNN through the main job: a GPU target, calibration and held-out data, and a bound on the loss."""
    out = tmp_path_factory.mktemp("main") / "out"
    arguments = ["compile", CNN, "--passes", "quant,fuse,simplify", "--target", "nvidia-h100-sxm", "--batch", 256]
    arguments += ["--data", EXAMPLES / "cnn/calibration.npz", "--eval-data", EXAMPLES / "cnn/heldout.npz"]
    assert main([str(a) for a in (*arguments, "--metric", "top1", "--max-loss", 0.01, "--out", out)]) == 0
    return out


def test_the_main_job_writes_model_and_reports(compiled):
    assert sorted(path.name for path in compiled.iterdir()) == ["model.onnx", "report.html", "report.json"]
    report = json.loads((compiled / "report.json").read_text())
    assert report["pipeline"] == "simplify,fuse,quant", "a set of passes runs in the order they declare"
    before, after = report["before"], report["after"]
    assert after["energy_j"]["mid"] < 0.6 * before["energy_j"]["mid"]
    assert before["launch_share"] < 0.3, "at the example's batch launch overhead is a minor part"
    assert after["launch_share"] < 0.3
    assert before["unknown"]["count"] == after["unknown"]["count"] == 0
    assert all(step["kept"] for step in report["passes"])


def top1(path: Path, example: str) -> float:
    data = np.load(EXAMPLES / example / "heldout.npz")
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return float((session.run(None, {"image": data["image"]})[0].argmax(1) == data["labels"]).mean())


def test_the_compiled_model_runs_and_is_as_accurate(compiled):
    assert top1(compiled / "model.onnx", "cnn") >= top1(CNN, "cnn") - 0.01


def test_the_compiled_model_says_how_it_was_made(compiled):
    from eopt.ir import onnx_io

    metadata = {e.key: e.value for e in onnx_io.read(compiled / "model.onnx").envelope.skeleton.metadata_props}
    assert metadata["eopt.pipeline"] == "simplify,fuse,quant"


@pytest.mark.slow
@pytest.mark.parametrize("example", ["cnn", "vit"])
def test_ungated_int8_keeps_top1_within_a_point(example, tmp_path):
    data = EXAMPLES / example
    arguments = [
        "compile",
        data / "model.onnx",
        "--passes",
        "simplify,fuse,quant",
        "--no-gate",
        "--out",
        tmp_path / "o.onnx",
    ]
    assert main([str(a) for a in (*arguments, "--data", data / "calibration.npz")]) == 0
    assert top1(tmp_path / "o.onnx", example) >= top1(data / "model.onnx", example) - 0.01
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.onnx", "o.report.html", "o.report.json"]


def test_when_nothing_pays_the_input_is_written_unchanged(capsys, tmp_path):
    code, out, _ = run(capsys, "compile", CNN, "--passes", "cast", "--target", "cpu-amd-epyc-7003", "--out", tmp_path)
    assert code == 0
    assert "predicted to use more energy" in out or "no predicted gain" in out
    code, _, _ = run(capsys, "diff", CNN, tmp_path / "model.onnx")
    assert code == 0


def test_a_violated_bound_exits_4_and_writes_the_rest(capsys, tmp_path):
    passes = "simplify,fuse,quant{format=dynamic,sqnr=90}"  # without samples nothing tells which operators to spare
    code, out, _ = run(capsys, "compile", CNN, "--passes", passes, "--no-gate", "--out", tmp_path)
    assert code == 4
    assert "rolled back" in out
    report = json.loads((tmp_path / "report.json").read_text())
    assert [step["kept"] for step in report["passes"]] == [True, True, False]
    assert report["passes"][2]["broken_at"]


def test_a_bound_no_int8_holds_leaves_the_model_as_it_was(capsys, tmp_path):
    arguments = ["compile", CNN, "--passes", "simplify,fuse,quant{sqnr=90}", "--no-gate", "--out", tmp_path]
    code, out, _ = run(capsys, *arguments, "--data", EXAMPLES / "cnn/calibration.npz")
    assert code == 0
    assert "nothing could be quantised within the contract" in " ".join(out.split())
    report = json.loads((tmp_path / "report.json").read_text())
    quant = report["passes"][2]
    assert quant["kept"] and not quant["applied"]
    assert quant["trials"] and not any(trial["holds"] and trial["share"] for trial in quant["trials"])


def test_pipelines_from_yaml(capsys, tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text("passes:\n- fuse: {only: [conv-batchnorm]}\n- simplify\n")
    code, out, _ = run(capsys, "compile", CNN, "--passes", path, "--out", tmp_path / "o", "--json")
    assert code == 0
    assert json.loads(out)["pipeline"] == "simplify,fuse{only=[conv-batchnorm]}"


def test_predict(capsys):
    code, out, _ = run(capsys, "predict", CNN, "--target", "nvidia-l4", "--batch", 8)
    assert code == 0
    assert "module tree" in out
    assert "predicted" in out
    code, out, _ = run(capsys, "predict", CNN, "--target", "nvidia-l4", "--batch", 8, "--json")
    assert json.loads(out)["before"]["energy_j"]["mid"] > 0


def test_predict_without_a_target(capsys):
    code, _, err = run(capsys, "predict", CNN)
    assert code == 2
    assert "needs a target" in err


def test_inspect(capsys):
    assert "BatchNormalization(" in run(capsys, "inspect", CNN)[1]
    summary = json.loads(run(capsys, "inspect", CNN, "--json")[1])
    assert summary["operators"]["Conv"] == 27
    assert "Conv" in run(capsys, "inspect", CNN, "--summary")[1]


def test_diff(capsys, compiled, tmp_path):
    code, out, _ = run(capsys, "diff", CNN, compiled / "model.onnx")
    assert code == 6
    assert "QuantizeLinear" in out
    shutil.copy(CNN, tmp_path / "same.onnx")
    assert run(capsys, "diff", CNN, tmp_path / "same.onnx")[:2] == (0, "no difference\n")


def test_why(capsys):
    code, out, _ = run(capsys, "why", "conv-batchnorm", "stem", CNN)
    assert (code, "applies" in out) == (0, True)
    answers = json.loads(run(capsys, "why", "conv-batchnorm", "stem", CNN, "--json")[1])
    assert answers[0]["applies"] is True
    code, _, err = run(capsys, "why", "conv-batchnom", "stem", CNN)
    assert (code, "did you mean 'conv-batchnorm'" in err) == (2, True)
    code, _, err = run(capsys, "why", "gelu", "stem", CNN)
    assert (code, "has no such operator" in err) == (2, True)


def test_passes(capsys):
    listed = json.loads(run(capsys, "passes", "list", "--json")[1])
    assert [item["name"] for item in listed[:4]] == ["simplify", "fuse", "quant", "cast"]
    assert "conv-batchnorm" in run(capsys, "passes", "show", "fuse")[1]
    assert run(capsys, "passes", "show")[0] == 2


def test_targets(capsys):
    assert "nvidia-h100-sxm" in run(capsys, "targets", "list")[1]
    found = json.loads(run(capsys, "targets", "find", "h100", "--json")[1])
    assert {sheet["name"] for sheet in found} == {"nvidia-h100-nvl", "nvidia-h100-pcie", "nvidia-h100-sxm"}
    assert "tdp_w" in run(capsys, "targets", "show", "nvidia-l4")[1]
    assert run(capsys, "targets", "find", "zzz")[0] == 2
