"""`eopt query`: one operator on the command line, many as JSON lines, and what is wrong with them."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eopt.backends import target as targets
from eopt.costmodel.learned import current
from eopt.costmodel.service import answer
from eopt.tools.cli import main, query

BAD_INPUT, USAGE = 3, 2
PRODUCT = {"op": "MatMul", "inputs": [[8, 512, 1024], [1024, 4096]], "dtype": "bfloat16"}
SINGLE = ("--op", "MatMul", "--inputs", "8x512x1024,1024x4096", "--dtype", "bfloat16")
ON = ("--target", "nvidia-h100-sxm")


pytestmark = pytest.mark.usefixtures("small_model_in_use")


@pytest.fixture
def ask(capsys, monkeypatch, tmp_path):
    """Ask about lines on standard input, or in a file: exit code, answers and errors."""

    def asked(lines: list, *more: object, file: bool = False) -> tuple[int, list[dict], str]:
        text = "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
        path = tmp_path / "queries.jsonl"
        path.write_text(text)
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        code = main(["query", *([str(path)] if file else []), *ON, *map(str, more)])
        captured = capsys.readouterr()
        return code, [json.loads(line) for line in captured.out.splitlines()], captured.err

    return asked


def close(written: dict, found: dict) -> bool:
    """Equal, but that seven digits of each figure are written."""
    return written.keys() == found.keys() and all(
        written[name] == (pytest.approx(value, rel=1e-6) if isinstance(value, float) else value)
        for name, value in found.items()
    )


def test_lines_from_standard_input_and_from_a_file_are_answered_alike(ask):
    rows = [{**PRODUCT, "id": 7}, {"op": "Softmax", "inputs": [[64, 64]], "dtype": "float32", "note": "ü"}]
    code, found, err = ask(rows)
    assert (code, err) == (0, "")
    assert [{name: answer[name] for name in row} for row, answer in zip(rows, found, strict=True)] == rows
    assert all(0 < row["latency_s_lo"] < row["latency_s"] < row["latency_s_hi"] for row in found)
    assert ask(rows, file=True)[1] == found
    assert ask(rows, "-")[1] == found


def test_answers_do_not_depend_on_how_lines_are_put_together(ask, monkeypatch):
    rows = [{"op": "MatMul", "inputs": [[rows, 64], [64, 64]], "dtype": "float16"} for rows in range(1, 12)]
    _, whole, _ = ask(rows, "--total")
    monkeypatch.setattr(query, "CHUNK", 3)
    _, parts, _ = ask(rows, "--total")
    assert len(parts) == len(rows) + 1
    for one, other in zip(whole, parts, strict=True):
        # the same arithmetic on fewer rows at once: float32 sums in another order
        assert one["energy_j"] == pytest.approx(other["energy_j"], rel=1e-4)


def test_an_object_that_was_answered_before_is_answered_again(ask):
    _, (once,), _ = ask([PRODUCT])
    _, (twice,), _ = ask([{**once, "energy_j": 1}])
    assert close(twice, once)


def test_what_is_written_is_what_the_service_answers(ask):
    rows = [{"op": "MatMul", "inputs": [[rows, 64], [64, 64]], "dtype": "float16"} for rows in range(1, 1 << 20, 9999)]
    for written, found in zip(ask(rows)[1], answer(rows, targets.load(ON[1]), None, current()), strict=True):
        assert close(written, found)


def test_the_total_is_the_last_line(ask):
    code, found, _ = ask([{**PRODUCT, "count": 3}, {"op": "AllReduce", "inputs": [[8]], "dtype": "float16"}], "--total")
    assert code == 0
    assert (found[-1]["op"], found[-1]["unknown_count"]) == ("Total", 1)
    assert found[-1]["energy_j"] == pytest.approx(3 * found[0]["energy_j"], rel=1e-6)
    assert found[1]["latency_s"] is None and found[1]["reasons"]


def test_nothing_is_asked(ask):
    assert ask([]) == (0, [], "")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "not a JSON object on one line"),
        ("nonsense", "not a JSON object on one line"),
        ("[1, 2]", "not a JSON object"),
        ("[" * 100_000, "not a JSON object on one line"),
        ('{"op": NaN}', "no number"),
        ('{"op": "Relu", "inputs": [[8]], "dtype": "float16", "x": 1e999}', "no number"),
        ({**PRODUCT, "inputs": [[8, 8], [9, 9]]}, "inner extents differ"),
        ({**PRODUCT, "count": 0}, "count: 0 is no positive integer"),
        ({**PRODUCT, "dtype": "float13"}, "float13"),
    ],
)
@pytest.mark.parametrize("file", [True, False])
def test_a_wrong_line_is_named_and_nothing_is_answered(ask, line, said, file, monkeypatch):
    monkeypatch.setattr(query, "CHUNK", 2)
    code, found, err = ask([PRODUCT] * 4 + [line], file=file)
    assert (code, found) == (BAD_INPUT, [])
    assert err.count("\n") == 1
    assert f"{'queries.jsonl' if file else 'standard input'}: line 5: " in err
    assert said in err


@pytest.mark.parametrize("field", ["attrs", "mine"])
def test_depth_has_an_end(ask, field):
    """Somewhere below a thousand levels the interpreter gives up, at another level in each of its parts."""
    for depth in range(900, 1000, 3):
        code, found, err = ask(
            [f'{{"op":"Relu","inputs":[[8]],"dtype":"float16","{field}":' + '{"a":' * depth + "1" + "}" * (depth + 1)]
        )
        assert (code, len(found), "line 1" in err) in {(0, 1, False), (BAD_INPUT, 0, True)}


def test_bytes_that_are_no_text(capsys, tmp_path):
    (tmp_path / "q.jsonl").write_bytes(b"\xff\xfe\n")
    assert main(["query", str(tmp_path / "q.jsonl"), *ON]) == BAD_INPUT
    assert "line 1" in capsys.readouterr().err


def test_lines_and_their_number_are_bounded(ask, monkeypatch):
    assert "longer than a megabyte" in ask([json.dumps({**PRODUCT, "pad": "x" * (1 << 20)})])[2]
    monkeypatch.setattr(query, "MAX_LINES", 2)
    code, found, err = ask([PRODUCT] * 3)
    assert (code, found) == (BAD_INPUT, [])
    assert "more than 2 lines" in err


def test_a_missing_file(capsys, tmp_path):
    assert main(["query", str(tmp_path / "nowhere"), *ON]) == BAD_INPUT
    assert "cannot be read" in capsys.readouterr().err


def test_one_query_as_a_table_and_as_json(capsys):
    assert main(["query", *ON, *SINGLE]) == 0
    text = capsys.readouterr().out
    assert "MatMul" in text and "predicted, board" in text and "nvidia-h100-sxm" in text
    assert main(["query", *ON, *SINGLE, "--json", "--total"]) == 0
    one, whole = map(json.loads, capsys.readouterr().out.splitlines())
    assert one["inputs"] == PRODUCT["inputs"]
    assert whole["energy_j"] == one["energy_j"]


def test_every_option_of_a_query_counts(capsys):
    options = ["--weight-dtype", "int4", "--scale", "block:128", "--math", "ieee", "--phase", "training"]
    assert main(["query", *ON, *SINGLE, *options, "--attr", "note=plain", "--attr", "axes=[1,2]", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [found[name] for name in ("weight_dtype", "scale", "math", "phase")] == options[1::2]
    assert found["attrs"] == {"note": "plain", "axes": [1, 2]}


def test_scalars_and_operands_left_out(capsys):
    assert main(["query", *ON, "--op", "Clip", "--inputs", "64x64,-,scalar", "--dtype", "float16", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["inputs"] == [[64, 64], None, []]


def test_a_lower_clock_and_a_cap_change_the_answer(capsys):
    figures = []
    for more in ([], ["--clock", "800"], ["--power-cap", "300"]):
        assert main(["query", *ON, *SINGLE, *more, "--json"]) == 0
        figures.append(json.loads(capsys.readouterr().out))
    assert figures[1]["latency_s"] > figures[0]["latency_s"]
    # these weights are random: a cap binds what they draw, and boards overshoot it by 3 %
    assert figures[2]["power_w"] <= 1.04 * 300


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (SINGLE, "needs a target", USAGE),
        ((*ON, *SINGLE[:4]), "needs --op, --inputs and --dtype", USAGE),
        ((*ON, *SINGLE, "queries.jsonl"), "not both", USAGE),
        ((*ON, *SINGLE, "--batch", "8"), "--batch", USAGE),
        ((*ON, *SINGLE, "--executor", "torhc"), "no executor", USAGE),
        ((*ON, *SINGLE, "--attr", "pads"), "NAME=VALUE", USAGE),
        ((*ON, "--op", "Relu", "--inputs", "8y8", "--dtype", "float16"), "no shape", USAGE),
        ((*ON, "--op", "Relu", "--inputs", "8", "--dtype", "float13"), "float13", BAD_INPUT),
        ((*ON, "--op", "MatMul", "--inputs", "8x8,9x9", "--dtype", "float16"), "inner extents differ", BAD_INPUT),
    ],
)
def test_wrong_command_lines(capsys, arguments, said, code):
    assert main(["query", *arguments]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    assert "line 1" not in captured.err


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(["op", "inputs", "dtype", "weight_dtype", "math", "scale", "attrs", "phase", "count"])


@settings(max_examples=60)
@given(st.dictionaries(FIELDS, JSON, max_size=3))
def test_whatever_a_line_holds_it_is_answered_or_refused(changes):
    with pytest.MonkeyPatch.context() as patch:
        out, text = io.StringIO(), json.dumps({**PRODUCT, **changes})
        patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        patch.setattr("sys.stdout", out)
        assert (main(["query", *ON]), bool(out.getvalue())) in {(0, True), (BAD_INPUT, False)}
