"""Cost models of others: by entry point or folder, made or called, and none of their answers taken unseen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint
from math import inf, nan

import pytest

from eopt.backends import executor, target
from eopt.costmodel import artifact, registry
from eopt.costmodel.learned import Learned
from eopt.costmodel.prior import Prior
from eopt.costmodel.query import Cost, Interval, Unknown
from eopt.costmodel.records import kernels_of
from eopt.ir.errors import InputError, UsageError

L4, TORCH = target.load("nvidia-l4"), executor.load("torch")
(KERNEL,) = kernels_of("Relu", ((64, 64),), "float16")
GOOD = Prior().query(KERNEL, L4, TORCH)
assert isinstance(GOOD, Cost)


@dataclass
class Answering:
    """Says the same to everything."""

    answer: object = GOOD
    devices: tuple[str, ...] = ("nvidia-l4",)

    def query_many(self, kernels, where, by):
        if isinstance(self.answer, Exception):
            raise self.answer
        return [self.answer for _ in kernels]


OBJECT = Answering()
NO_MODEL = object()


def refuses() -> Answering:
    raise RuntimeError("no licence")


@pytest.fixture
def installed(monkeypatch):
    """Install something of this module under the name `acme`."""

    def install(attribute: str) -> None:
        entry = EntryPoint("acme", f"{__name__}:{attribute}", registry.GROUP)
        monkeypatch.setattr(EntryPoint, "load", lambda self: globals()[attribute])
        monkeypatch.setattr(registry, "entry_points", lambda group: [entry] if group == registry.GROUP else [])

    return install


@pytest.mark.parametrize("attribute", ["OBJECT", "Answering", "make"])
def test_an_object_a_class_and_a_function_are_all_taken(installed, attribute):
    installed(attribute)
    found = registry.load("acme")
    assert found.query(KERNEL, L4, TORCH) == GOOD
    assert (found.name, found.devices) == ("acme", ("nvidia-l4",))


def make() -> Answering:
    return Answering()


@pytest.mark.parametrize(
    ("attribute", "error", "said"),
    [("NO_MODEL", InputError, "cannot be made"), ("refuses", InputError, "RuntimeError: no licence")],
)
def test_what_cannot_be_made_is_named(installed, attribute, error, said):
    installed(attribute)
    with pytest.raises(error, match=f"(?s)'acme'.*{said}"):
        registry.load("acme")


def test_a_folder_is_an_artefact(random_model, tmp_path):
    artifact.save(random_model(), tmp_path)
    assert isinstance(registry.load(str(tmp_path)), Learned)
    with pytest.raises(InputError, match="no cost model here"):
        registry.load(str(tmp_path.parent))


def test_an_unknown_name_lists_those_there_are(installed):
    installed("OBJECT")
    with pytest.raises(UsageError, match=r"no cost model 'amce'.*acme"):
        registry.load("amce")


def changed(**fields: object) -> Cost:
    return replace(GOOD, **fields)  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (changed(latency_s=Interval(nan, nan, nan)), "latency_s is not finite"),
        (changed(energy_j=Interval(1.0, 0.5, inf)), "energy_j is not finite"),
        (changed(energy_j=Interval(1.0, 2.0, 3.0)), "want 0 <= lo <= mid <= hi"),
        (changed(latency_s=Interval(0.0, 0.0, 0.0)), "mid > 0"),
        (changed(launch_s=1.0), "launch_s 1 is no part"),
        (changed(terms={"static": -1.0}), "no number of joules"),
        (changed(terms=None), "AttributeError"),
        (1.0, "answered with float"),
        (None, "answered with NoneType"),
        (ValueError("shapes"), "failed: ValueError: shapes"),
    ],
)
def test_an_answer_that_is_no_cost_is_refused_by_name(answer, said):
    with pytest.raises(InputError, match=f"cost model 'acme'.*{said}"):
        registry.Foreign("acme", Answering(answer)).query(KERNEL, L4, TORCH)


def test_unknown_is_an_answer():
    reason = Unknown(("too small",))
    assert registry.Foreign("acme", Answering(reason)).query(KERNEL, L4, TORCH) == reason


def test_an_answer_too_few():
    class Short(Answering):
        def query_many(self, kernels, where, by):
            return []

    with pytest.raises(InputError, match="0 answers to 1 kernels"):
        registry.Foreign("acme", Short()).query(KERNEL, L4, TORCH)
