"""TVM targets as people write them: JSON, a tag, or the older string form `llvm -mcpu=znver4 -num-cores=8`.

What kinds, options and tags there are is in `tvm_tags.json`, so nothing here needs TVM. The text is not trusted: sizes
are capped, and every option is one its kind has, with a value of its type.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any

from eopt.ir.errors import UsageError

MAX_CHARS = 4096
MAX_INTEGER = 2**53
MAX_HOSTS = 1  # a device has a host, a host has none

Attributes = Mapping[str, Any]


@dataclass(frozen=True)
class Description:
    """A TVM target.

    Attributes:
        tag: what it is called; '' where it has no name.
        said: attributes that were written, as against those of the tag.
        attributes: all of them, the written ones over the tag's; `kind` is always there.
    """

    tag: str
    said: Attributes
    attributes: Attributes

    @property
    def kind(self) -> str:
        """`cuda`, `llvm` …"""
        return str(self.attributes["kind"])


def tags() -> Mapping[str, Attributes]:
    """The attributes of every tag of the pinned TVM."""
    return _table()["tags"]


def options(kind: str) -> Mapping[str, str]:
    """The options of a kind with their types, as TVM calls these; none for a kind that is not there."""
    known: Mapping[str, str] = _table()["kinds"].get(kind, {})
    return known


@cache
def _table() -> dict[str, dict[str, Any]]:
    text = files("eopt.backends").joinpath("tvm_tags.json").read_text(encoding="utf-8")
    found: dict[str, dict[str, Any]] = json.loads(text)
    return found


def is_tvm(text: str) -> bool:
    """True for JSON, a tag, a kind, and anything with options behind it."""
    first = (text.split(maxsplit=1) or [""])[0]
    return first.startswith("{") or " -" in text or first in tags() or first in _table()["kinds"]


def parse(text: str) -> Description:
    """Read a target.

    Raises:
        UsageError: naming the option or tag, with candidates.
    """
    if len(text) > MAX_CHARS:
        raise UsageError(f"a TVM target has {MAX_CHARS} characters at most; this text has {len(text)}")
    return _checked(_json(text) if text.lstrip().startswith("{") else _old(text))


def checked(found: Any, where: str) -> Description:
    """A target from a mapping or text that came in another way, such as the field of a sheet.

    Raises:
        UsageError: with `where` before it.
    """
    try:
        return parse(found) if isinstance(found, str) else _checked(found)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None


def _json(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_once)
    except RecursionError:
        raise UsageError("TVM target: JSON nested too deeply") from None
    except ValueError as error:
        raise UsageError(f"TVM target: not JSON: {str(error)[:100]}") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        _add(found, name, value)
    return found


def _add(found: dict[str, Any], name: str, value: Any) -> None:
    if name in found:
        raise UsageError(f"TVM target: {name[:40]!r} is given twice")
    found[name] = value


def _old(text: str) -> dict[str, Any]:
    """`KIND|TAG -option=value …`, with quotes as in a shell; a flag without a value is true."""
    try:
        first, *words = shlex.split(text) or [""]
    except ValueError as error:
        raise UsageError(f"TVM target: {str(error).lower()}") from None
    found: dict[str, Any] = {"tag" if first in tags() else "kind": first}
    known = options(tags()[first]["kind"] if first in tags() else _kind(first))
    while words:
        name, equals, value = _option(words.pop(0), known)
        if not equals and known[name] != "bool":
            value = words.pop(0) if words else ""
        _add(found, name, _value(name, value, known[name]))
    return found


def _option(word: str, known: Mapping[str, str]) -> tuple[str, str, str]:
    if not word.startswith("-"):
        raise UsageError(f"TVM target: {word[:40]!r} is no option; write -name=value")
    name, equals, value = word.lstrip("-").partition("=")
    _only(name, known)
    return name, equals, value


def _value(name: str, text: str, wanted: str) -> Any:
    if wanted == "int":
        return int(text) if re.fullmatch(r"-?[0-9]{1,15}", text) else text
    if wanted == "bool":
        return {"": True, "1": True, "true": True, "0": False, "false": False}.get(text.lower(), text)
    if wanted == "Array<str>":
        return [item for item in text.split(",") if item]
    return _old(text) if name == "host" and text else text


def _checked(found: Any, hosts: int = 0) -> Description:
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise UsageError("TVM target: expected a kind or a tag with options")
    said = {name: value for name, value in found.items() if not name.startswith("feature.")}  # TVM works these out
    tag = said.pop("tag", "") or ""
    if tag and (not isinstance(tag, str) or tag not in tags()):
        raise UsageError(f"TVM target: {str(tag)[:40]!r} is no tag{_meant(str(tag), tags())}")
    base = tags()[tag] if tag else {}
    kind = _kind(said.get("kind", base.get("kind")))
    if tag and kind != base["kind"]:
        raise UsageError(f"TVM target: kind {kind}, but {tag} is {base['kind']}")
    for name, value in said.items():
        _only(name, options(kind))
        said[name] = _typed(name, value, options(kind)[name], hosts)
    return Description(tag, said, {**base, **said, "kind": kind})


def _typed(name: str, value: Any, wanted: str, hosts: int) -> Any:
    fits = {
        "int": type(value) is int and abs(value) < MAX_INTEGER,
        "bool": isinstance(value, bool),
        "str": isinstance(value, str) and value.isprintable(),
        "Array<str>": isinstance(value, list) and all(isinstance(item, str) and item.isprintable() for item in value),
        "target.Target": isinstance(value, str | dict) and hosts < MAX_HOSTS,
    }
    if not fits.get(wanted):
        raise UsageError(f"TVM target: {name}: {repr(value)[:40]} is no {wanted}")
    if wanted != "target.Target":
        return value
    return dict(_checked(_old(value) if isinstance(value, str) else value, hosts + 1).attributes)


def _kind(name: Any) -> str:
    known = _table()["kinds"]
    if not isinstance(name, str) or name not in known:
        given = "no kind is given" if name is None else f"{str(name)[:40]!r} is no kind or tag"
        raise UsageError(f"TVM target: {given}{_meant(str(name), [*known, *tags()])}")
    return name


def _only(name: str, known: Mapping[str, str]) -> None:
    if name not in known:
        raise UsageError(f"TVM target: unknown option {name[:40]!r}{_meant(name, known)}")


def _meant(name: str, known: Mapping[str, Any] | list[str]) -> str:
    close = get_close_matches(name[:100], known, 5, 0.6)
    return f"; did you mean {', '.join(close)}?" if close else ""
