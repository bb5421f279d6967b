"""Arguments and output that several verbs share."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from eopt.ir.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

Progress = Callable[[str, int, int], None]


def add_model(parser: argparse.ArgumentParser, name: str = "model") -> None:
    """MODEL and `--trust`."""
    parser.add_argument(
        name,
        metavar=name.upper(),
        help="x.onnx, a local Hugging Face directory, module:function returning (nn.Module, example_inputs), or a .pt2",
    )
    if not any(action.dest == "trust" for action in parser._actions):
        parser.add_argument("--trust", action="store_true", help="load file types that can run code (.pt2)")


def add_hardware(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Where something is priced, and who runs it there."""
    group = parser.add_argument_group("situation that is priced")
    group.add_argument(
        "--target", metavar="NAME", help="hardware: a name (eopt targets list), a sheet.yaml, auto, or a TVM target"
    )
    group.add_argument("--clock", type=number, metavar="MHZ", help="clock of the cores, where it is held")
    group.add_argument("--power-cap", type=number, metavar="W", help="power limit, where it is below the TDP")
    group.add_argument("--executor", metavar="NAME", help="who runs the model there; default by target")
    return group


def add_situation(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """What is priced: target, executor, batch and other symbolic dims."""
    group = add_hardware(parser)
    group.add_argument("--batch", type=positive, metavar="N", help="extent of the batch dim (default 1)")
    group.add_argument(
        "--bind",
        action="append",
        default=[],
        metavar="NAME=VALUE[,...]",
        help="extents of other symbolic dims; repeatable",
    )
    return group


def add_cost_model(group: argparse._ArgumentGroup) -> None:
    """`--model`, under the name `cost_model`."""
    group.add_argument(
        "--model", dest="cost_model", metavar="NAME|DIR", help="another cost model: an installed one, or an artefact"
    )


def add_reach(parser: argparse.ArgumentParser) -> None:
    """`--rpc`, `--key` and `--trust-network`."""
    group = parser.add_argument_group("devices behind a TVM tracker")
    group.add_argument("--rpc", metavar="HOST:PORT", help="the tracker")
    group.add_argument("--key", metavar="K", help="the kind of device, as its servers registered")
    group.add_argument("--trust-network", action="store_true", help="allow hosts that are not this machine")


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json`."""
    parser.add_argument("--json", action="store_true", help="machine-readable output on standard output")


def bindings(arguments: argparse.Namespace) -> dict[str, int]:
    """The `--bind` options as a mapping.

    Raises:
        UsageError: not NAME=VALUE with a positive integer.
    """
    bound: dict[str, int] = {}
    for item in ",".join(arguments.bind).split(",") if arguments.bind else ():
        name, equals, value = item.partition("=")
        if not equals or not value.isdigit() or int(value) < 1:
            raise UsageError(f"--bind {item}: expected NAME=VALUE with a positive integer")
        bound[name] = int(value)
    return bound


def console(stderr: bool = False) -> Console:
    """A rich console: colour only on a terminal, and no wrapping at 80 columns in a pipe."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else 120, soft_wrap=False, highlight=False)


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    json.dump(document, sys.stdout, indent=2, allow_nan=False)
    sys.stdout.write("\n")


@contextmanager
def progress(silent: bool) -> Iterator[Progress]:
    """A callback that draws a progress bar on a terminal's standard error and nothing elsewhere."""
    if silent or not sys.stderr.isatty():
        yield lambda label, done, total: None
        return
    from rich.progress import Progress as Bars

    with Bars(console=console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def update(label: str, done: int, total: int) -> None:
            if label not in tasks:
                tasks[label] = bars.add_task(label, total=total)
            bars.update(tasks[label], completed=done, total=total)

        yield update


def size(text: str) -> int:
    """Bytes as people write them, for argparse: `500MB`, `4GB`, decimal as on disks.

    Raises:
        argparse.ArgumentTypeError: something else.
    """
    matched = re.fullmatch(r"(\d{1,6})(MB|GB)", text.upper())
    if matched is None or not int(matched[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write 500MB or 4GB")
    return int(matched[1]) * (10**6 if matched[2] == "MB" else 10**9)


def number(text: str) -> float:
    """A positive number, for argparse.

    Raises:
        argparse.ArgumentTypeError: something else.
    """
    if not re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text) or not float(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return float(text)


def positive(text: str) -> int:
    """A positive integer, for argparse.

    Raises:
        argparse.ArgumentTypeError: something else.
    """
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive integer")
    return int(text)
