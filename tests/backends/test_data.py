"""Samples that differ in shape, their sources, and what is refused about them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eopt.backends import data
from eopt.backends.data import Dataset, Part
from eopt.ir.errors import InputError, UsageError
from eopt.ir.types import DType, Value

FEEDS = (Value("x", DType.FLOAT32, ("batch", "length", 2)),)


def ragged(*shapes: tuple[int, int]) -> Dataset:
    """Parts of (samples, length); every value of a sample is its number, which is its label too."""
    first, arrays = 0, []
    for samples, length in shapes:
        numbers = np.arange(first, first + samples)
        filled = np.broadcast_to(numbers[:, None, None], (samples, length, 2)).astype(np.float32)
        arrays.append({"x": filled, "labels": numbers})
        first += samples
    return Dataset.joined(arrays)


shapes = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 4)), min_size=1, max_size=6)


# -- datasets


@given(shapes, st.integers(1, 5))
def test_batches_hold_every_sample_once_and_one_shape(parts, size):
    samples = ragged(*parts)
    batches = [batch["x"] for batch in samples.batches(FEEDS, size)]
    assert all(len(batch) <= size for batch in batches)
    numbers = [int(sample[0, 0]) for batch in batches for sample in batch]
    assert sorted(numbers) == list(range(len(samples)))
    assert numbers == samples.labels.tolist()
    lengths = dict(enumerate(length for count, length in parts for _ in range(count)))
    assert all(sample.shape[0] == lengths[int(sample[0, 0])] for batch in batches for sample in batch)


@given(shapes, st.floats(0.01, 0.99), st.integers(0, 9))
def test_a_split_is_disjoint_and_complete(parts, share, seed):
    samples = ragged(*parts)
    kept, held_out = samples.split(share, seed)
    assert len(held_out) == max(1, round(share * len(samples)))
    assert len(kept) + len(held_out) == len(samples)
    numbers = [*kept.labels.tolist(), *held_out.labels.tolist()]
    assert sorted(numbers) == list(range(len(samples)))


@given(shapes, st.integers(0, 60), st.integers(0, 60))
def test_taking_counts_through_the_parts(parts, start, stop):
    samples = ragged(*parts)
    taken = samples.take(slice(start, stop))
    assert taken.labels.tolist() == samples.labels.tolist()[start:stop]
    assert all(len(part) for part in taken.parts) or len(taken) == 0


def test_samples_of_one_shape_are_one_array():
    samples = ragged((2, 3), (4, 3))
    assert len(samples.parts) == 1 and samples.arrays["x"].shape == (6, 3, 2)
    assert Dataset({"x": samples.arrays["x"]}).labels is None


def test_samples_of_many_shapes_are_no_array():
    with pytest.raises(InputError, match="2 different shapes"):
        _ = ragged((2, 3), (4, 5)).arrays


def test_labels_of_many_shapes_are_no_array():
    parts = [Part({"x": np.zeros((1, length, 2), np.float32)}, np.zeros((1, length))) for length in (2, 3)]
    with pytest.raises(InputError, match="labels"):
        _ = Dataset(parts[0].arrays, parts[0].labels, parts[1:]).labels


def test_a_fixed_batch_is_filled_within_a_shape():
    feeds = (Value("x", DType.FLOAT32, (4, "length", 2)),)
    counts = [len(batch["x"]) for batch in ragged((9, 3), (3, 5)).batches(feeds)]
    assert counts == [4, 4]


# -- sources


def write(folder, **arrays):
    for name, array in arrays.items():
        np.savez(folder / f"{name}.npz", x=array)


def test_a_folder_of_different_lengths(tmp_path):
    rng = np.random.default_rng(0)
    given = {name: rng.standard_normal((2, length, 2)).astype(np.float32) for name, length in (("a", 17), ("b", 64))}
    write(tmp_path, **given, c=given["a"])
    found = data.load(tmp_path, FEEDS)
    assert [part.arrays["x"].shape for part in found.parts] == [(4, 17, 2), (2, 64, 2)]
    assert np.array_equal(found.parts[1].arrays["x"], given["b"])


@pytest.mark.parametrize("feeds", [FEEDS, (Value("x", DType.FLOAT32, (8, "length", 2)),)])
def test_too_few_samples(tmp_path, feeds):
    write(tmp_path, a=np.zeros((3, 4, 2), np.float32), b=np.zeros((3, 5, 2), np.float32))
    if feeds is FEEDS:
        assert len(data.load(tmp_path, feeds)) == 6
        return
    with pytest.raises(InputError, match="3 samples of one shape fill no batch of 8"):
        data.load(tmp_path, feeds)


MODULE = """
import numpy as np
def several():
    for length in (3, 5):
        yield {"x": np.zeros((2, length, 2), np.float32)}
def one():
    return {"x": np.ones((2, 3, 2), np.float32), "labels": np.arange(2)}
def wrong():
    return [{"x": np.ones((2, 3, 2))}]
def uneven():
    return [{"x": [[1.0], [1.0, 2.0]]}]
nothing = lambda: []
number = lambda: 5
numbers = lambda: [1, 2]
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "samples_of_mine.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return "samples_of_mine"


def test_a_function(module):
    assert [part.arrays["x"].shape for part in data.load(f"{module}:several", FEEDS).parts] == [(2, 3, 2), (2, 5, 2)]
    assert data.load(f"{module}:one", FEEDS).labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("wrong", "item 1: 'x' is float64, not float32"),
        ("uneven", "item 1: no array"),
        ("nothing", "gives no samples"),
        ("number", "returned a int"),
        ("numbers", "item 1: a int"),
    ],
)
def test_a_function_that_gives_no_samples(module, function, message):
    with pytest.raises(InputError, match=message) as raised:
        data.load(f"{module}:{function}", FEEDS)
    assert f"{module}:{function}" in str(raised.value)


@pytest.mark.parametrize("reference", ["samples_of_mine:missing", "no_such_module_here:f"])
def test_no_such_function(module, reference):
    with pytest.raises(UsageError, match="expected module:function"):
        data.load(reference, FEEDS)


def test_a_file_of_that_name_is_not_imported(module, tmp_path):
    (tmp_path / f"{module}:one").write_bytes(b"")
    with pytest.raises(InputError, match="no readable"):
        data.load(f"{module}:one", FEEDS)
