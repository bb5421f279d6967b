"""The report as one self-contained page that opens offline."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib.resources import files
from typing import Any

from eopt.tools.report.tree import Json

SCRIPTS = ("page.js", "frontier.js", "icicle.js", "table.js", "main.js")  # in the order they use each other
DIGITS = 6  # of the figures in the page, which shows three; report.json keeps them all


def render(report: Json) -> str:
    """The page. Model and node names are hostile input: they travel as JSON and are only ever set as text."""
    from jinja2 import Environment

    style, script = _read("page.css"), "".join(map(_read, SCRIPTS))
    return (
        Environment(autoescape=True)
        .from_string(_read("page.html"))
        .render(
            title=report["model"]["path"],
            style=style,
            style_hash=_hash(style),
            script=script,
            script_hash=_hash(script),
            data=embedded(_rounded(report)),
        )
    )


def embedded(document: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(document, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _read(name: str) -> str:
    return files("eopt.tools.report").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """The source expression of a content security policy that allows exactly this inline text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value
