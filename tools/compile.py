"""`eopt compile` as a library: rewrite a model under the cost gate, verify it, and report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from onnx import StringStringEntryProto

from eopt.backends import data as samples
from eopt.backends.base import Feed
from eopt.backends.data import Dataset
from eopt.backends.harness import bench
from eopt.backends.meters import library
from eopt.backends.segments import runner_for
from eopt.costmodel import tree
from eopt.costmodel.tree import Situation
from eopt.ir.analysis import index_limits
from eopt.ir.errors import UsageError
from eopt.ir.model import Model
from eopt.passes import metrics
from eopt.passes.base import Context
from eopt.passes.gate import Gate
from eopt.passes.pipeline import Compiled, Pipeline, Verification
from eopt.tools import against, frontdoor
from eopt.tools.measuring import setup_of
from eopt.tools.proving import Compare, Proven, prove
from eopt.tools.situation import situation as make_situation

EVAL_SHARE = 0.25
VERIFY_SAMPLES = 64  # enough for a stable SQNR; metrics use every held-out sample

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Result:
    """A compiled model with all that was found on the way.

    Attributes:
        compiled: the original, the rewritten model, and what each pass did.
        pipeline: the passes in the order they ran.
        situation: what was priced; None without a target.
        proven: what was measured of the passes; None unless that was asked for.
    """

    compiled: Compiled
    pipeline: Pipeline
    situation: Situation | None
    proven: Proven | None = None

    @property
    def violated(self) -> bool:
        """True where a pass broke its contract; one that only measured worse did not."""
        measured = {place for place, _ in self.proven.trials} if self.proven else set()
        return any(not step.kept for place, step in enumerate(self.compiled.steps) if place not in measured)

    @property
    def model(self) -> Model:
        """The rewritten model, with its provenance in the metadata."""
        return self.compiled.model


@dataclass(frozen=True)
class Options:
    """Everything about a compilation besides the model and the passes.

    Attributes:
        tokenizer: local Hugging Face folder that reads the texts of `.jsonl` data.
        measure: run every pass's result in turns with the last good model, and roll back what measures worse.
    """

    target: str | None = None
    executor: str | None = None
    data: str | Path | Dataset | None = None
    eval_data: str | Path | Dataset | None = None
    tokenizer: str | Path | None = None
    metric: str | None = None
    max_loss: float | None = None
    gate: bool = True
    batch: int | None = None
    bind: Mapping[str, int] | None = None
    clock_mhz: float | None = None
    power_cap_w: float | None = None
    seed: int = 0
    measure: bool = False


def compile_model(
    model: Model | str | Path,
    passes: Pipeline | str,
    *,
    progress: Progress = lambda label, done, total: None,
    **options: Any,
) -> Result:
    """Apply passes to a model; each rewrite is kept only if it is predicted to save energy on the target.

    Args:
        model: a model, or anything `eopt.read` takes.
        passes: a pipeline or its text, `simplify,fuse,quant`.
        progress: called with a label, the number done and the total.
        options: the fields of `Options`.

    Raises:
        UsageError: unknown pass, option or target, or data missing where a pass needs it.
        InputError: unusable model or data.
    """
    chosen = Options(**options)
    pipeline = Pipeline.parse(passes) if isinstance(passes, str) else passes
    model = model if isinstance(model, Model) else frontdoor.load(model)
    situation = make_situation(
        model,
        chosen.target,
        chosen.executor,
        chosen.batch,
        chosen.bind or {},
        chosen.clock_mhz,
        chosen.power_cap_w,
    )
    compare = _measuring(situation, chosen, progress) if chosen.measure else None
    calibration, held_out = _datasets(model, chosen)
    context = Context(
        runner_for(model),
        calibration,
        _gate(situation) if chosen.gate and situation else None,
        situation.target if situation else None,
        situation.executor if situation else None,
        seed=chosen.seed,
        progress=progress,
    )
    compiled = pipeline.run(model, context, _verification(model, held_out, chosen))
    proven = prove(compiled, compare) if compare else None
    compiled = proven.compiled if proven else compiled
    if proven and compiled.model is model:  # nothing is left of the passes: the input as it came
        return Result(compiled, pipeline, situation, proven)
    stamped = _stamped(compiled.model, str(pipeline))
    return Result(replace(compiled, model=stamped), pipeline, situation, proven)


def _measuring(situation: Situation | None, options: Options, progress: Progress) -> Compare:
    """Runs two models in turns on this machine."""
    if situation is None:
        raise UsageError("--measure needs a target; give --target auto for this machine")
    if options.clock_mhz is not None or options.power_cap_w is not None:
        raise UsageError("--measure runs at the clock and power this machine has; leave out --clock and --power-cap")
    setup = setup_of(situation.target, situation.executor, None, None)
    bench.versions(setup)
    meter = library.find(situation.target)
    return partial(against.compare, situation=situation, setup=setup, meter=meter, progress=progress)


def _gate(situation: Situation) -> Gate:
    return Gate(
        lambda before, after: tree.compare(before, after, situation),
        lambda model: tree.kernels_j(model, situation),
    )


def _datasets(model: Model, options: Options) -> tuple[Dataset | None, Dataset]:
    """Calibration samples, if any, and held-out samples to verify on."""
    calibration = _loaded(options.data, model, options.tokenizer)
    held_out = _loaded(options.eval_data, model, options.tokenizer)
    if calibration is None:
        return None, held_out or samples.synthetic(model.feeds, index_limits(model), options.seed)
    if held_out is None and len(calibration) > 1:
        return calibration.split(EVAL_SHARE, options.seed)
    return calibration, held_out or calibration


def _loaded(source: str | Path | Dataset | None, model: Model, tokenizer: str | Path | None) -> Dataset | None:
    return samples.load(source, model.feeds, tokenizer) if isinstance(source, str | Path) else source


def _verification(model: Model, held_out: Dataset, options: Options) -> Verification:
    if options.max_loss is None:
        return Verification(_batches(model, held_out.take(slice(0, VERIFY_SAMPLES))))
    if options.metric is None:
        raise UsageError("--max-loss needs --metric, the measure it limits")
    metric = metrics.load(options.metric, held_out.labels)
    contract = metrics.MaxLoss(options.metric, metric, options.max_loss, held_out.labels)
    return Verification(_batches(model, held_out), contract)


def _batches(model: Model, data: Dataset) -> Sequence[Feed]:
    return list(data.batches(model.feeds))


def _stamped(model: Model, pipeline: str) -> Model:
    """Write into the model's metadata how it came to be."""
    from eopt import __version__

    skeleton = type(model.envelope.skeleton)()
    skeleton.CopyFrom(model.envelope.skeleton)
    provenance = {"eopt.pipeline": pipeline, "eopt.version": __version__}
    kept = [entry for entry in skeleton.metadata_props if entry.key not in provenance]
    del skeleton.metadata_props[:]
    skeleton.metadata_props.extend(kept)
    skeleton.metadata_props.extend(StringStringEntryProto(key=key, value=value) for key, value in provenance.items())
    stamped = replace(model, envelope=replace(model.envelope, skeleton=skeleton))
    return stamped.with_index(model.index)
