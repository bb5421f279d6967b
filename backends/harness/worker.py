"""The process that measures: one executor and nothing else in it, so that no library's threads disturb another's.

It reads requests as JSON lines and answers each with one. Libraries print as they like; that goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from eopt.backends.base import Feed
from eopt.backends.harness import engines
from eopt.backends.harness.arrays import read_arrays, write_arrays
from eopt.backends.harness.base import Engine, Prepared, Setup, Workload
from eopt.ir.errors import EoptError

SEED = 0


class Server:
    """Holds prepared workloads by number and answers requests about them."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.prepared: dict[int, Prepared] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """One of `prepare`, `run`, `outputs` and `drop`."""
        what, number = request["do"], request["number"]
        if what == "prepare":
            self.prepared[number] = self._prepare(request)
            return {}
        if what == "run":
            return {"seconds": self.prepared[number].run(request["calls"])}
        if what == "outputs":
            write_arrays(Path(request["to"]), self.prepared[number].outputs())
            return {}
        self.prepared.pop(number, None)
        return {}

    def _prepare(self, request: dict[str, Any]) -> Prepared:
        path = Path(request["path"])
        workload = Workload(request["name"], path.read_bytes(), request["copies"], request["lone"])
        feed = feed_of(workload) if request["feed"] is None else read_arrays(Path(request["feed"]))
        return self.engine.prepare(workload, feed)


def feed_of(workload: Workload) -> Feed:
    """Inputs of a workload as it declares them, drawn with a fixed seed."""
    import onnx

    from eopt.backends import data
    from eopt.ir.analysis import index_limits
    from eopt.ir.onnx_io import from_proto

    model = from_proto(onnx.load_from_string(workload.onnx))
    return data.synthetic(model.feeds, index_limits(model), SEED).arrays


def main() -> None:
    """Serve until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    server = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if server is None:
                server = Server(engines.engine(Setup(**request)))
                found: dict[str, Any] = {"version": server.engine.version}
            else:
                found = server.answer(request)
        except EoptError as error:
            found = {"error": str(error), "code": error.exit_code}
        except Exception as error:  # whatever a library raises concerns one workload, not the others
            said = (str(error).strip().splitlines() or [""])[0]
            found = {"error": f"{type(error).__name__}: {said}", "code": 1}
        answers.write(json.dumps(found) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
