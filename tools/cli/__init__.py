"""The command line. A verb's module is imported only when it is called, so `eopt --help` stays instant."""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from eopt.ir.errors import EoptError, UsageError

VERBS = {
    "compile": "rewrite a model so that it uses less energy, verify it, and report where the joules went",
    "predict": "annotate a model with the predicted energy and latency of every operator and module",
    "query": "price operators given by shape and type: one, or millions as JSON lines",
    "explain": "say where the joules of an operator come from and which figures of the sheet they hang on",
    "inspect": "print the operator tree of a model",
    "diff": "show what differs between two models",
    "why": "say why a rewrite rule does not apply at a node",
    "targets": "list, show, find, check and add hardware targets",
    "calibrate": "measure the operators that tell most about a device, and correct predictions of it by them",
    "measure": "measure a model or operators here, beside what is predicted, or one model against another",
    "evaluate": "score the cost model on devices it has not seen, beside baselines",
    "passes": "list and show passes",
    "data": "list and fetch sources of measurements and build the table the cost model learns from",
}

EPILOG = """\
examples:
  eopt compile model.onnx --passes simplify,fuse,quant --data calibration.npz --target nvidia-h100-sxm
  eopt predict model.onnx --target nvidia-l4 --batch 8
  eopt why gelu "encoder/layer.0" model.onnx
  eopt targets find h100

exit codes:
  0 done (also when nothing pays: the input is written unchanged and the output says so)   1 internal error
  2 wrong usage   3 bad input, or an output that cannot be written   4 a contract or accuracy bound is violated
  5 partial result   6 a check failed   130 interrupted

`eopt VERB --help` explains a verb and its options."""


class Parser(argparse.ArgumentParser):
    """Reports a wrong command line in one line, with the documented exit code."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing usage and leaving."""
        raise UsageError(f"{message}; see {self.prog} --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _dispatch(given)
    except EoptError as error:
        print(f"eopt: {error}", file=sys.stderr)  # noqa: T201 -- the one place that writes errors
        return error.exit_code
    except KeyboardInterrupt:
        print("eopt: interrupted; nothing was written", file=sys.stderr)  # noqa: T201
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader has gone (as in `| head`): that is no failure
        return 0


def _dispatch(given: list[str]) -> int:
    gc.set_threshold(200_000, 50, 50)  # a model is millions of objects without cycles: collecting them finds nothing
    if not given or given[0].startswith("-"):
        _top_level().parse_args(given or ["--help"])
        return 0
    verb = given[0]
    if verb not in VERBS:
        from difflib import get_close_matches

        close = get_close_matches(verb, VERBS, 1)
        hint = f"did you mean {close[0]!r}?" if close else "see eopt --help"
        raise UsageError(f"no verb {verb!r}; {hint}")
    module = import_module(f"eopt.tools.cli.{verb}")
    parser = Parser(
        prog=f"eopt {verb}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    code: int = module.run(parser.parse_args(given[1:]))
    return code


def _top_level() -> Parser:
    listed = "\n".join(f"  {verb:<9} {summary}" for verb, summary in VERBS.items())
    parser = Parser(
        prog="eopt",
        description=f"eopt: energy-aware compiler for deep neural networks.\n\nverbs:\n{listed}",
        epilog=EPILOG,
        usage="eopt VERB [options]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"eopt {_version()}")
    return parser


def _version() -> str:
    import eopt

    return eopt.__version__
