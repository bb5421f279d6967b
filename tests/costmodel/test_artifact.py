"""The trained model as files: whole or not at all, and nothing in them is believed blindly."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from eopt.costmodel import artifact
from eopt.costmodel.whole_head import NAMES, Head
from eopt.ir.errors import InputError, OutputError


def test_what_is_saved_is_loaded(random_model, tmp_path):
    made = random_model(3, 1.0)
    artifact.save(made, tmp_path / "model")
    back = artifact.load(tmp_path / "model")
    assert back.network.devices == made.network.devices and back.network.members == made.network.members
    assert back.spread == made.spread and dict(back.executors) == dict(made.executors)
    assert set(back.network.weights) == set(made.network.weights)
    for name, array in made.network.weights.items():
        assert np.array_equal(back.network.weights[name], array)


def test_the_head_of_whole_models_goes_along(random_model, tmp_path):
    head = Head(np.linspace(-1, 1, len(NAMES)))
    artifact.save(replace(random_model(3, 1.0), head=head, whole_spread={"latency": 0.3, "energy": 0.4}), tmp_path)
    back = artifact.load(tmp_path)
    assert back.head == head and back.whole_spread == {"latency": 0.3, "energy": 0.4}
    about = json.loads((tmp_path / artifact.ABOUT).read_text())
    del about["whole"]["head"]["overall"]
    (tmp_path / artifact.ABOUT).write_text(json.dumps(about))
    with pytest.raises(InputError, match="head of whole models"):
        artifact.load(tmp_path)


def test_the_same_model_is_the_same_file(random_model, tmp_path):
    for name in ("one", "two"):
        artifact.save(random_model(3, 1.0), tmp_path / name)
    for name in (artifact.ARRAYS, artifact.ABOUT):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_files_that_are_no_model(random_model, tmp_path):
    with pytest.raises(InputError, match="no cost model here"):
        artifact.load(tmp_path / "nowhere")
    artifact.save(random_model(0, 1.0), tmp_path)
    about = json.loads((tmp_path / artifact.ABOUT).read_text())
    (tmp_path / artifact.ABOUT).write_text(json.dumps({**about, "version": 99}))
    with pytest.raises(InputError, match="version 99"):
        artifact.load(tmp_path)
    (tmp_path / artifact.ABOUT).write_text("{")
    with pytest.raises(InputError, match="not a cost model"):
        artifact.load(tmp_path)
    artifact.save(random_model(0, 1.0), tmp_path)
    (tmp_path / artifact.ARRAYS).write_bytes(b"\x80\x04pickle")
    with pytest.raises(InputError, match="not a cost model"):
        artifact.load(tmp_path)


def test_a_folder_that_cannot_be_written(random_model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        artifact.save(random_model(0, 1.0), tmp_path / "file")


def test_the_shipped_model_is_small_and_says_where_it_is_from():
    assert artifact.available()
    folder = artifact._own_folder()
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 10 << 20
    shipped = artifact.load(folder)
    about = shipped.about
    assert shipped.head is not None and about["wholes"]["rows"] > 2000
    assert {"command", "created", "data", "samples", "scores", "settings"} <= set(about)
