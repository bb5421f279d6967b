"""Records and categories of the domain ai.onnx.ml: look-ups, columns, and maps, which are containers of references."""

from __future__ import annotations

from eopt.ir.ops import OpView, Tie, Trait, Unit, Work, declare
from eopt.ir.opset.shared import kept, moved, vector
from eopt.ir.types import DType

_ML = "ai.onnx.ml"


def _look_up(view: OpView) -> Work:
    """One look-up per element."""
    return vector(view, view.input(0).numel)


def _copied(view: OpView) -> Work:
    """Reads and writes everything once."""
    return moved(view)


def _columns(view: OpView) -> Work:
    """Reads the columns it writes, and which they are."""
    return moved(view, view.outputs[0].nbytes + view.input(1).nbytes)


def _reference(view: OpView) -> Work:
    """No tensor moves: `view` is None, as maps have no tensor type."""
    return Work(0.0, 0.0, 0.0, Unit.NONE, view.outputs[0].dtype if view.outputs else DType.INT64)


def _each(view: OpView) -> tuple[Tie, ...]:
    return kept(view)


declare(["LabelEncoder", "CategoryMapper"], _look_up, _each, domain=_ML)
declare(["OneHotEncoder"], _look_up, _each, domain=_ML)
declare(["FeatureVectorizer"], _copied, traits=(Trait.LAYOUT,), domain=_ML)
declare(["ArrayFeatureExtractor"], _columns, traits=(Trait.LAYOUT,), domain=_ML)
declare(["CastMap", "DictVectorizer", "ZipMap"], _reference, domain=_ML)
