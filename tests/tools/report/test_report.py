"""The report: complete data, honest totals, names that cannot break out of the page."""

from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from eopt.ir.text_parse import loads
from eopt.tools.compile import compile_model
from eopt.tools.predict import predict_model
from eopt.tools.report import data, html, terminal
from eopt.tools.report.units import change, percent, si

GOLDEN = Path(__file__).parents[2] / "rewrites"
EVIL = "</script><img src=x onerror=alert(1)>[red]"


def compiled_report(
    target: str | None = "nvidia-h100-sxm", executor: str | None = "torch", name: str = "", golden: str = "layer-norm"
) -> data.Json:

    text = (GOLDEN / f"{golden}.eopt").read_text().partition("---\n")[0]
    model = loads(text.replace('"root"', json.dumps(name or "root")))
    result = compile_model(model, "simplify,fuse", target=target, executor=executor)
    return data.compile_report(result.compiled, str(result.pipeline), result.situation, "model.onnx")


@pytest.fixture(scope="module")
def report() -> data.Json:
    return compiled_report()


def test_the_tree_adds_up_to_the_total(report):
    for side in ("before", "after"):
        leaves = data.operators(report[side]["tree"])
        total = sum(leaf["energy_j"] for leaf in leaves)
        assert total == pytest.approx(report[side]["energy_j"]["mid"])
        assert sum(report[side]["terms"].values()) == pytest.approx(total)


def test_it_is_json_without_nan(report):
    assert json.loads(json.dumps(report, allow_nan=False))["schema"] == data.SCHEMA


def test_before_and_after_each_pass(report):
    simplify, fuse = report["passes"]
    assert simplify["energy_j"][1] == fuse["energy_j"][0]
    assert fuse["energy_j"][1] == report["after"]["energy_j"]["mid"] < report["before"]["energy_j"]["mid"]
    assert fuse["applied"][0]["rule"] == "layer-norm"
    assert fuse["applied"][0]["saved_j"] > 0


def test_refusals_carry_their_reason():
    (refused,) = compiled_report(executor="tensorrt", golden="matmul-add")["passes"][1]["refused"]
    assert refused["rule"] == "matmul-add"
    assert refused["reason"] == "no predicted gain on this target and executor"


def test_without_a_target_costs_are_null_not_zero():
    bare = compiled_report(target=None, executor=None)
    assert bare["before"] is None
    assert bare["situation"] is None
    assert bare["passes"][1]["energy_j"] is None
    assert '"before":null' in html.render(bare)
    assert "no target given: nothing was priced" in printed(bare, terminal.print_compile)


def test_unknown_operators_are_listed_with_reasons_and_no_figures():
    model = loads('model {"": 20}\ninput x: float32[4]\ny: float32[4] = com.acme.Foo(x)\noutput y: float32[4]')
    priced, situation = predict_model(model, "nvidia-l4")
    report = data.predict_report(model, priced, situation, "m.onnx")
    assert report["before"]["energy_j"] is None
    (op,) = data.operators(report["before"]["tree"])
    assert (op["energy_j"], op["basis"]) == (None, "unknown")
    assert "no operator specification" in report["before"]["unknown"]["ops"][0]["reasons"][0]
    assert "unknown: 1 operators (100.0 %)" in printed(report, terminal.print_predict, 3)


def printed(report: data.Json, show, *more) -> str:
    stream = io.StringIO()
    show(report, Console(file=stream, width=100), *more)
    return stream.getvalue()


def test_the_terminal_shows_bottlenecks_passes_and_launch_share(report):
    text = printed(report, terminal.print_compile)
    assert "\x1b" not in text, "no colour codes in a pipe"
    for wanted in ("operators by energy, before", "operators by energy, after", "modules by energy", "layer-norm",
                   "is not launch overhead", "every executed operator could be priced", "estimated"):  # fmt: skip
        assert wanted in text
    assert max(map(len, text.splitlines())) <= 100


def test_hostile_names_stay_text():
    hostile = compiled_report(name=EVIL + "\x1b[31m")
    text = printed(hostile, terminal.print_compile)
    assert "\x1b" not in text
    page = html.render(hostile)
    parser = Elements()
    parser.feed(page)
    assert parser.tags.count("script") == 2
    assert "img" not in parser.tags
    assert EVIL in json.loads(parser.data)["passes"][1]["applied"][0]["where"][0]


class Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.data = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.inside_data = dict(attrs).get("id") == "data"

    def handle_data(self, content):
        if self.tags and self.tags[-1] == "script" and self.inside_data and not self.data:
            self.data = content


def test_the_page_asks_nobody_for_anything(report):
    page = html.render(report)
    without_data = re.sub(r'<script type="application/json".*?</script>', "", page, flags=re.S)
    assert not re.search(r"https?:|//[a-z]|@import|url\(|src=|fetch\(|XMLHttp", without_data)
    assert "default-src 'none'" in page


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.00123, "1.23 mJ"), (4.56e-7, "456 nJ"), (1234.0, "1.23 kJ"), (0.0, "0 J"), (None, "unknown"), (1.0, "1 J")],
)
def test_units(value, text):
    assert si(value, "J") == text


def test_changes_and_shares():
    assert (change(2.0, 1.0), change(None, 1.0), percent(0.1234)) == ("-50.0 %", "unknown", "12.3 %")
