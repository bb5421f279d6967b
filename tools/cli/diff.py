"""Show what differs between two models: operators, weights, interface and operator sets.

  eopt diff before.onnx after.onnx

Exit code 0 when they are equal, 6 when they differ."""

from __future__ import annotations

import argparse

from eopt.tools.cli import common

DIFFERENT = 6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the options."""
    common.add_model(parser, "before")
    common.add_model(parser, "after")
    common.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Compare and print."""
    from eopt.ir.diff import diff
    from eopt.tools import frontdoor

    before = frontdoor.load(arguments.before, trust=arguments.trust)
    after = frontdoor.load(arguments.after, trust=arguments.trust)
    found = diff(before, after)
    if arguments.json:
        common.print_json(found.to_dict())
    else:
        common.console().print(str(found), markup=False)
    return DIFFERENT if found else 0
