"""The one spelling of pipelines: `simplify,fuse,quant{weight=int8,observer=minmax}`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from eopt.ir.errors import UsageError


@dataclass(frozen=True)
class PassSpec:
    """A pass by name with the options given for it."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


def parse(text: str) -> list[PassSpec]:
    """Read a pipeline from its text form.

    Raises:
        UsageError: unbalanced braces, or an option without `=`.
    """
    return [_parse_pass(part) for part in _split(text)]


def format_value(value: Any) -> str:
    """Write an option value as `parse` reads it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ",".join(format_value(item) for item in value) + "]"
    return str(value)


def _parse_pass(text: str) -> PassSpec:
    name, brace, rest = text.partition("{")
    if not brace:
        return PassSpec(name.strip())
    if not rest.endswith("}"):
        raise UsageError(f"passes: {text!r} lacks its closing brace")
    options: dict[str, Any] = {}
    for item in _split(rest[:-1]):
        key, equals, value = item.partition("=")
        if not equals:
            raise UsageError(f"passes: option {item!r} of {name!r} needs the form key=value")
        options[key.strip()] = _value(value.strip())
    return PassSpec(name.strip(), options)


def _value(text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise UsageError(f"passes: value {text!r} cannot be read") from None
    return tuple(value) if isinstance(value, list) else value


def _split(text: str) -> list[str]:
    """Cut at commas outside of brackets."""
    parts, depth, current = [], 0, ""
    for character in text:
        depth += (character in "{[") - (character in "}]")
        if depth < 0:
            raise UsageError(f"passes: {text!r} closes a bracket it did not open")
        if character == "," and depth == 0:
            parts.append(current.strip())
            current = ""
        else:
            current += character
    if depth:
        raise UsageError(f"passes: {text!r} lacks a closing brace")
    return [part for part in [*parts, current.strip()] if part]
