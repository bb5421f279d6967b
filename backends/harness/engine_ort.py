"""onnxruntime measures: sessions as users make them, with inputs and outputs bound once."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from eopt.backends.base import Array, Feed
from eopt.backends.harness import overhead
from eopt.backends.harness.base import Setup, Workload
from eopt.backends.harness.overhead import own_s
from eopt.ir.errors import InputError, UsageError

_PROVIDERS = {"cpu": ["CPUExecutionProvider"], "cuda": ["CUDAExecutionProvider"]}
_BUILT_FOR = {"cpu": "onnxruntime", "cuda": "onnxruntime-gpu"}
# The layout its convolutions work in; a lone one pays for the way there and back, one among others does not.
_REORDERS = {"ReorderInput", "ReorderOutput"}
_PROFILED_CALLS = 20


class OrtEngine:
    """Runs workloads in `onnxruntime.InferenceSession`."""

    def __init__(self, setup: Setup) -> None:
        import onnxruntime as ort

        self.setup, self.version = setup, str(ort.__version__)
        missing = set(_PROVIDERS[setup.device]) - set(ort.get_available_providers())
        if missing:
            raise UsageError(f"this onnxruntime has no {missing.pop()}; pip install {_BUILT_FOR[setup.device]}")

    @cached_property
    def per_call_s(self) -> float:
        """Of a session, besides its operators."""
        return overhead.per_call_s(self)

    def prepare(self, workload: Workload, feed: Feed) -> PreparedSession:
        """See `Engine.prepare`."""
        prepared = self.raw(workload, feed)
        if workload.lone:
            prepared.per_call_s = self.per_call_s
            prepared.kept = 1.0 - (_reordering(self, workload, feed) if _convolves(prepared, workload) else 0.0)
        return prepared

    def raw(self, workload: Workload, feed: Feed) -> PreparedSession:
        """See `overhead.Raw`."""
        return PreparedSession(self._session(workload), feed, self.setup.device)

    def _session(self, workload: Workload, profile: Path | None = None) -> Any:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = self.setup.threads
        if profile is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(profile)
        providers = _PROVIDERS[self.setup.device]
        try:
            session = ort.InferenceSession(workload.onnx, options, providers=providers)
        except Exception as error:  # onnxruntime raises types of its own, all of them plain Exceptions
            reason = str(error).strip().split("\n")[0][:300]
            raise InputError(f"{workload.name}: onnxruntime refuses it: {reason}") from None
        if session.get_providers()[0] not in providers:  # it falls back to the CPU without an error
            raise InputError(f"{workload.name}: {providers[0]} does not start; are CUDA and cuDNN installed?")
        return session


class PreparedSession:
    """A session with everything bound.

    Attributes:
        per_call_s: of a call, which is not the operators'.
        kept: share of the rest that is.
    """

    per_call_s, kept = 0.0, 1.0

    def __init__(self, session: Any, feed: Feed, device: str) -> None:
        import onnxruntime as ort

        self.session, self.device = session, device
        self.binding = session.io_binding()
        for name, array in feed.items():
            self.binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array, device, 0))
        self.names = [output.name for output in session.get_outputs()]
        for name in self.names:
            self.binding.bind_output(name, device)

    def run(self, calls: int) -> float:
        """See `Prepared.run`."""
        run, binding = self.session.run_with_iobinding, self.binding
        start = perf_counter()
        for _ in range(calls):
            run(binding)
        binding.synchronize_outputs()
        return own_s(perf_counter() - start, calls, self.per_call_s) * self.kept

    def outputs(self) -> dict[str, Array]:
        """See `Prepared.outputs`."""
        self.session.run_with_iobinding(self.binding)
        return dict(zip(self.names, self.binding.copy_outputs_to_cpu(), strict=True))


def _convolves(prepared: PreparedSession, workload: Workload) -> bool:
    """True for convolutions on a CPU."""
    return "CPUExecutionProvider" in prepared.session.get_providers()[:1] and b"Conv" in workload.onnx


def _reordering(engine: OrtEngine, workload: Workload, feed: Feed) -> float:
    """The share of a lone convolution's time that goes into changing layouts."""
    with TemporaryDirectory() as folder:
        session = engine._session(workload, Path(folder) / "profile")
        prepared = PreparedSession(session, feed, engine.setup.device)
        prepared.run(_PROFILED_CALLS)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    nodes = [event for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]
    spent = sum(event["dur"] for event in nodes)
    moved = sum(event["dur"] for event in nodes if event["args"].get("op_name") in _REORDERS)
    return moved / spent if spent else 0.0
