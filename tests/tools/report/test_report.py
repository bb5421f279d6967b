"""The report: complete data, honest totals, names that cannot break out of the page."""

from __future__ import annotations

import io
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
from rich.console import Console

from eopt.ir.text_parse import loads
from eopt.passes.contract import Verdict
from eopt.tools.compile import compile_model
from eopt.tools.predict import predict_model
from eopt.tools.report import data, html, terminal, tree
from eopt.tools.report.units import change, percent, si

GOLDEN = Path(__file__).parents[2] / "rewrites"
EVIL = "</script><img src=x onerror=alert(1)>[red]"


def compiled_report(
    target: str | None = "nvidia-h100-sxm", executor: str | None = "torch", name: str = "", golden: str = "layer-norm"
) -> tree.Json:

    text = (GOLDEN / f"{golden}.eopt").read_text().partition("---\n")[0]
    model = loads(text.replace('"root"', json.dumps(name or "root")))
    result = compile_model(model, "simplify,fuse", target=target, executor=executor)
    return data.compile_report(result.compiled, str(result.pipeline), result.situation, "model.onnx")


@pytest.fixture(scope="module")
def report() -> tree.Json:
    return compiled_report()


def test_the_tree_adds_up_to_the_total(report):
    for side in ("before", "after"):
        leaves = tree.operators(report[side]["tree"])
        total = sum(leaf["energy_j"] for leaf in leaves)
        assert total == pytest.approx(report[side]["operators"]["energy_j"]["mid"])
        assert total + report[side]["residual"]["energy_j"] == pytest.approx(report[side]["energy_j"]["mid"])
        assert sum(report[side]["terms"].values()) == pytest.approx(total)


def test_regions_add_up_to_their_children(report):
    for _, region in tree.modules(report["after"]["tree"]):
        assert region["energy_j"] == pytest.approx(sum(child["energy_j"] or 0.0 for child in region["children"]))


def test_kernels_merge_fused_groups_and_keep_every_joule(report):
    merged = tree.kernels(report["before"]["tree"])
    assert sum(kernel["energy_j"] for kernel in merged) == pytest.approx(
        report["before"]["operators"]["energy_j"]["mid"]
    )
    assert merged == sorted(merged, key=lambda kernel: -kernel["energy_j"])


def valid(report: tree.Json) -> None:
    plain = json.loads(json.dumps(report, allow_nan=False))  # as a reader gets it
    schema = json.loads(files("eopt.tools.report").joinpath("schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(plain)


def test_the_schema_holds_with_and_without_a_target(report):
    valid(report)
    valid(compiled_report(target=None, executor=None))


def test_the_schema_refuses_what_it_does_not_know(report):
    for broken in ({**report, "extra": 1}, {**report, "schema": 2}, {k: v for k, v in report.items() if k != "after"}):
        with pytest.raises(jsonschema.ValidationError):
            valid(broken)


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
    (op,) = tree.operators(report["before"]["tree"])
    assert (op["energy_j"], op["basis"]) == (None, "unknown")
    assert "no operator specification" in report["before"]["unknown"]["ops"][0]["reasons"][0]
    assert report["before"]["tree"]["energy_j"] is None, "a sum of nothing known is unknown, not 0"
    assert any("cannot be priced" in warning for warning in report["warnings"])
    valid(report)
    text = printed(report, terminal.print_predict, 3)
    assert "unknown: 1 operators (100.0 % of kernels)" in text
    assert "0 J" not in text


def test_a_rollback_is_the_first_warning_and_an_infinite_figure_is_null():
    model = loads((GOLDEN / "layer-norm.eopt").read_text().partition("---\n")[0])
    result = compile_model(model, "simplify,fuse", target="nvidia-h100-sxm", executor="torch")
    simplify, fuse = result.compiled.steps
    broken = replace(fuse, verdict=Verdict(False, -math.inf, 80.0, "dB", "y"), broken_at="block/norm")
    compiled = replace(result.compiled, steps=(simplify, broken), model=result.compiled.original)
    rolled_back = data.compile_report(compiled, "simplify,fuse", result.situation, "m.onnx")
    assert rolled_back["warnings"][0].startswith("fuse was rolled back: -inf dB")
    assert rolled_back["passes"][1]["verdict"]["measured"] is None
    assert rolled_back["passes"][1]["energy_j"][0] == rolled_back["passes"][1]["energy_j"][1]
    assert rolled_back["passes"][1]["applied"] == []
    valid(rolled_back)
    assert "first broken at" in printed(rolled_back, terminal.print_compile)


def printed(report: tree.Json, show, *more) -> str:
    stream = io.StringIO()
    show(report, Console(file=stream, width=100), *more)
    return stream.getvalue()


def test_the_terminal_shows_bottlenecks_passes_and_launch_share(report):
    text = printed(report, terminal.print_compile)
    assert "\x1b" not in text, "no colour codes in a pipe"
    for wanted in (
        "top 10 operators and fused groups by energy", "before", "after", "top modules by energy", "layer-norm",
        "of predicted time is launch overhead", "unknown: none", "predicted", "holds",
    ):  # fmt: skip
        assert wanted in text
    for side in ("before", "after"):
        assert si(tree.kernels(report[side]["tree"])[0]["energy_j"], "J") in text
        assert si(report[side]["energy_j"]["mid"], "J") in text
    assert "…" not in text, "nothing is cut off"
    assert max(map(len, text.splitlines())) <= 100


def test_hostile_names_stay_text():
    hostile = compiled_report(name=EVIL + "\x1b[31m")
    named = {**hostile, "model": {**hostile["model"], "path": "[red]a\x1b[31m"}}
    text = printed(named, terminal.print_compile)
    assert "\x1b" not in text
    assert "[red]a\N{REPLACEMENT CHARACTER}[31m" in text
    assert not set("<>&") & set(html.embedded({"name": "</script ><!--<script>&"}))
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
    assert "unsafe" not in without_data.partition("</head>")[0].partition("<style>")[0]


def test_the_page_of_five_thousand_operators_stays_small(report):
    leaves = tree.operators(report["after"]["tree"])
    many = [{**leaves[number % len(leaves)], "uid": number, "name": f"node_linear_{number}"} for number in range(5000)]
    side = {**report["after"], "tree": {**report["after"]["tree"], "children": many}}
    assert len(html.render({**report, "before": side, "after": side})) < 3_000_000


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.00123, "1.23 mJ"),
        (4.56e-7, "456 nJ"),
        (1234.0, "1.23 kJ"),
        (0.0, "0 J"),
        (None, "unknown"),
        (1.0, "1 J"),
        (0.9999, "1 J"),
        (31.4, "31.4 J"),
        (-1.86e-5, "-18.6 µJ"),
    ],
)
def test_units(value, text):
    assert si(value, "J") == text


def test_changes_and_shares():
    assert (change(2.0, 1.0), change(None, 1.0), percent(0.1234)) == ("-50.0 %", "unknown", "12.3 %")
