"""Accuracy metrics as contracts: how much of a metric the rewritten model may lose on held-out data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module

import numpy as np

from eopt.backends.base import Array
from eopt.ir.errors import UsageError
from eopt.passes.contract import Verdict

Metric = Callable[[Array, Array, Array | None], float]
"""`metric(outputs, reference_outputs, labels)`: higher is better."""


@dataclass(frozen=True, eq=False)
class MaxLoss:
    """The metric of the first output falls by at most `max_loss`, in its own unit."""

    name: str
    metric: Metric
    max_loss: float
    labels: Array | None

    def check(self, reference: Sequence[dict[str, Array]], rewritten: Sequence[dict[str, Array]]) -> Verdict:
        """See `Contract.check`; the measured figure is the loss."""
        output = next(iter(reference[0]))
        if len({batch[output].shape[1:] for batch in reference}) > 1:
            raise UsageError(f"metric {self.name!r} needs outputs of one shape; give --eval-data samples of one length")
        expected = np.concatenate([batch[output] for batch in reference])
        actual = np.concatenate([batch[output] for batch in rewritten])
        labels = None if self.labels is None else self.labels[: len(expected)]
        loss = self.metric(expected, expected, labels) - self.metric(actual, expected, labels)
        return Verdict(bool(loss <= self.max_loss), float(loss), self.max_loss, f"loss of {self.name}", output)


def load(name: str, labels: Array | None) -> Metric:
    """A metric by name or as `module:function`.

    Raises:
        UsageError: unknown, or labels are needed and there are none.
    """
    if name in _OWN:
        metric, needs_labels = _OWN[name]
        if needs_labels and labels is None:
            raise UsageError(f"metric {name!r} needs labels; add an array 'labels' to the data")
        return metric
    module, colon, function = name.partition(":")
    if not colon:
        raise UsageError(f"no metric {name!r}; choose from {', '.join(_OWN)} or give module:function")
    try:
        found: Metric = getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"metric {name!r}: {error}") from None
    return found


def top1(outputs: Array, reference: Array, labels: Array | None) -> float:
    """Share of samples whose largest output is the label."""
    assert labels is not None
    return float(np.mean(outputs.argmax(-1) == labels))


def cosine(outputs: Array, reference: Array, labels: Array | None) -> float:
    """Mean cosine between the outputs of both models, per sample."""
    a = outputs.reshape(len(outputs), -1).astype(np.float64)
    b = reference.reshape(len(reference), -1).astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(np.mean(np.sum(a * b, axis=1) / np.maximum(norms, 1e-30)))


def neg_perplexity(outputs: Array, reference: Array, labels: Array | None) -> float:
    """Minus exp of the mean cross-entropy; outputs are logits (…, vocabulary), labels token ids, -100 ignored."""
    assert labels is not None
    logits = outputs.reshape(-1, outputs.shape[-1]).astype(np.float64)
    wanted = labels.reshape(-1)
    logits, wanted = logits[wanted != -100], wanted[wanted != -100]
    logits -= logits.max(-1, keepdims=True)
    log_likelihood = logits[np.arange(len(wanted)), wanted] - np.log(np.exp(logits).sum(-1))
    return -float(np.exp(-log_likelihood.mean()))


_OWN: dict[str, tuple[Metric, bool]] = {
    "top1": (top1, True),
    "cosine": (cosine, False),
    "perplexity": (neg_perplexity, True),
}
