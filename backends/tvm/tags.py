"""What the installed TVM knows of targets: kinds with their options, and tags with their attributes.

`python -m eopt.backends.tvm.tags` prints the contents of `backends/tvm_tags.json`, which is read without TVM.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def read() -> dict[str, dict[str, dict[str, Any]]]:
    """`kinds`: by kind the type of each option; `tags`: by tag the attributes that rebuild it."""
    from tvm.target import Target, list_tags

    tags = {str(tag): _attributes(Target(str(tag)).export()) for tag in list_tags()}
    return {
        "kinds": {str(kind): _options(str(kind)) for kind in sorted(map(str, Target.list_kinds()))},
        "tags": {tag: tags[tag] for tag in sorted(tags)},
    }


def _options(kind: str) -> dict[str, str]:
    from tvm.target import Target

    # a kind with an architecture asks the driver for it where none is given
    known = {"cuda": {"arch": "sm_80"}, "nvptx": {"mcpu": "sm_80"}, "rocm": {"mcpu": "gfx900"}}.get(kind, {})
    options = {str(name): str(type_) for name, type_ in Target({"kind": kind, **known}).kind.options.items()}
    return dict(sorted(options.items()))


def _attributes(exported: Any) -> dict[str, Any]:
    """An exported target without what TVM works out by itself again."""
    from tvm.target import Target

    whole = plain(exported)
    if "host" in whole:
        whole["host"] = _attributes(exported["host"])
    short = {name: value for name, value in whole.items() if name not in ("keys", "tag") and not _derived(name)}
    rebuilt = plain(Target(short).export())
    return short if rebuilt["keys"] == whole["keys"] else {**short, "keys": whole["keys"]}


def _derived(name: str) -> bool:
    return name.startswith("feature.")


def plain(value: Any) -> Any:
    """The same of dictionaries, lists, texts and numbers, in the place of TVM's containers."""
    if hasattr(value, "items"):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, bool | int | float):
        return value
    return str(value) if isinstance(value, str) else [plain(item) for item in value]


def encoded(found: dict[str, dict[str, dict[str, Any]]]) -> str:
    """JSON with a kind or tag a line."""
    parts = []
    for name, entries in found.items():
        lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in entries.items())
        parts.append(f'"{name}": {{\n{lines}\n}}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    sys.stdout.write(encoded(read()))
