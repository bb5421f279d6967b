"""The report as one self-contained page that opens offline."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from eopt.tools.report.data import Json


def render(report: Json) -> str:
    """The page. Model and node names are hostile input: they travel as JSON and are only ever set as text."""
    from jinja2 import Environment

    folder = files("eopt.tools.report")
    environment = Environment(autoescape=True)
    template = environment.from_string(folder.joinpath("page.html").read_text(encoding="utf-8"))
    style, script = (folder.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return template.render(title=report["model"]["path"], style=style, script=script, data=embedded(report))


def embedded(document: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(document, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e").replace("\u2028", "\\u2028")
