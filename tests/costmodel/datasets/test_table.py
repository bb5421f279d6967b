"""The registry of sources, and the table that is built from them: schema, refusals, fingerprint and cards."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from eopt.costmodel import datasets
from eopt.costmodel.datasets import cards, table
from eopt.costmodel.datasets.base import COLUMNS, Dataset, Source
from eopt.ir.errors import InputError, OutputError, UsageError

pd = pytest.importorskip("pandas")
pa = pytest.importorskip("pyarrow")

ROW: dict[str, Any] = {
    "source": "mine",
    "device": "nvidia-t4",
    "level": "operator",
    "op": "Add",
    "inputs": [[2, 3], []],
    "dtype": "float32",
    "attrs": "",
    "phase": "forward",
    "latency_s": 2.0,
}
STEP = {"workload": "net", "position": 0, "count": 2, "op": "Relu", "inputs": [[4]], "dtype": "float32"}


def load_mine(folder: Path) -> Dataset:
    return Dataset(pd.read_json(folder / "rows.json"), pd.DataFrame([STEP]))


SOURCE = Source("mine", "energy/mine", load_mine, "nowhere", "MIT", ("a note",))


@pytest.fixture
def mine(monkeypatch, tmp_path: Path) -> Any:
    """Puts rows where the source reads them."""
    place = tmp_path / "data/energy/mine"
    place.mkdir(parents=True)
    entry = EntryPoint("mine", "mine:SOURCE", datasets.GROUP)
    monkeypatch.setattr(datasets, "entry_points", lambda group: [entry])
    monkeypatch.setattr(EntryPoint, "load", lambda entry: SOURCE)

    def put(*rows: dict[str, Any]) -> Path:
        pd.DataFrame(rows).to_json(place / "rows.json")
        return tmp_path / "data"

    return put


def test_all_sources_of_ours_can_be_loaded_and_are_named_as_their_files():
    for name in datasets.names():
        source = datasets.load(name)
        assert source.name == name
        assert source.folder.startswith(("latency/", "energy/"))
        assert source.licence


def test_an_unknown_source_is_refused_with_a_hint():
    with pytest.raises(UsageError, match="did you mean 'zeus'"):
        datasets.load("zues")


def test_a_source_of_a_third_party_is_found(mine):
    assert datasets.names()[-1] == "mine"
    assert datasets.load("mine") is SOURCE


def test_a_name_of_ours_cannot_be_taken(monkeypatch):
    monkeypatch.setattr(datasets, "entry_points", lambda group: [EntryPoint("zeus", "mine:SOURCE", group)])
    with pytest.raises(UsageError, match="zeus are already defined"):
        datasets.names()


def test_an_entry_point_that_is_no_source_is_refused(monkeypatch):
    entry = EntryPoint("odd", "json:dumps", datasets.GROUP)
    monkeypatch.setattr(datasets, "entry_points", lambda group: [entry])
    with pytest.raises(UsageError, match="json:dumps is no"):
        datasets.load("odd")


def test_rows_come_back_as_they_went_and_what_was_not_read_is_null(mine, tmp_path):
    built = table.build(mine(ROW, ROW | {"op": "Mul", "power_w": 70.0}), tmp_path / "out", ["mine"])
    assert built["mine"] == table.Built(rows=2, workload_rows=1)
    rows = table.read(tmp_path / "out")
    assert list(rows) == list(COLUMNS)
    assert rows["op"].tolist() == ["Add", "Mul"]
    assert [[list(shape) for shape in inputs] for inputs in rows["inputs"]] == [[[2, 3], []]] * 2
    assert rows["power_w"].isna().tolist() == [True, False]
    assert rows[["energy_scope", "noisy", "batch"]].isna().all().all()
    steps = table.workloads(tmp_path / "out", ["mine"])
    assert steps[["source", "workload", "op"]].values.tolist() == [["mine", "net", "Relu"]]


def test_the_schema_is_fixed_whatever_the_rows_hold(mine, tmp_path):
    import pyarrow.parquet as parquet

    table.build(mine(ROW), tmp_path / "out", ["mine"])
    schema = parquet.read_schema(tmp_path / "out/rows-mine.parquet")
    assert schema.names == list(COLUMNS)
    assert schema.field("inputs").type == pa.list_(pa.list_(pa.int64()))
    assert schema.field("clock_hz").type == pa.float64()
    assert schema.field("batch").type == pa.int64()
    assert schema.field("noisy").type == pa.bool_()
    assert schema.field("library").type == pa.dictionary(pa.int32(), pa.string())


def test_columns_and_sources_can_be_chosen(mine, tmp_path):
    table.build(mine(ROW), tmp_path / "out", ["mine"])
    assert list(table.read(tmp_path / "out", ["mine"], ["op", "latency_s"])) == ["op", "latency_s"]
    with pytest.raises(UsageError, match="no columns speed"):
        table.read(tmp_path / "out", columns=["speed"])
    with pytest.raises(InputError, match=r"rows-zeus\.parquet not built; run `eopt data build"):
        table.read(tmp_path / "out", ["zeus"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"device": "abacus"}, "no target sheet abacus"),
        ({"level": "layer"}, "a level must be one of"),
        ({"latency_s": 0.0}, "latency_s has values that are not positive"),
        ({"energy_j": -1.0}, "energy_j has values that are not positive"),
        ({"speed": 1.0}, "no columns speed"),
    ],
)
def test_rows_that_break_the_schema_are_refused(mine, tmp_path, change, reason):
    with pytest.raises(InputError, match=reason):
        table.build(mine(ROW, ROW | change), tmp_path / "out", ["mine"])
    assert not list((tmp_path / "out").glob("*.parquet"))


def test_devices_without_a_sheet_say_so(mine, tmp_path):
    table.build(mine(ROW | {"device": "other-phone"}), tmp_path / "out", ["mine"])
    assert table.read(tmp_path / "out")["device"].tolist() == ["other-phone"]


def test_a_folder_that_is_missing_is_named(mine, tmp_path):
    with pytest.raises(InputError, match=r"empty/energy/mine: no such folder; mine needs the files of nowhere"):
        table.build(tmp_path / "empty", tmp_path / "out", ["mine"])


def test_a_place_that_cannot_be_written_is_named(mine, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be created"):
        table.build(mine(ROW), tmp_path / "file/out", ["mine"])


def test_the_fingerprint_is_that_of_the_contents(mine, tmp_path):
    prints = []
    for place, op in (("a", "Add"), ("b", "Add"), ("c", "Mul")):
        table.build(mine(ROW | {"op": op}), tmp_path / place, ["mine"])
        prints.append(table.fingerprint(tmp_path / place))
    assert prints[0] == prints[1] != prints[2]


def test_workloads_that_a_source_no_longer_has_go(mine, monkeypatch, tmp_path):
    folder = mine(ROW)
    table.build(folder, tmp_path / "out", ["mine"])
    without = replace(SOURCE, load=lambda place: Dataset(load_mine(place).rows))
    monkeypatch.setattr(EntryPoint, "load", lambda entry: without)
    assert table.build(folder, tmp_path / "out", ["mine"])["mine"].workload_rows == 0
    with pytest.raises(InputError, match="workloads not built"):
        table.workloads(tmp_path / "out")


def test_a_card_says_what_there_is(mine, tmp_path):
    table.build(mine(ROW, ROW | {"op": "Mul", "latency_s": 4.0, "noisy": True}), tmp_path / "out", ["mine"])
    text = cards.write(tmp_path / "out", tmp_path / "cards", "mine")[0].read_text()
    assert "2 rows, 0 workloads, 1 rows marked noisy" in text
    assert "| nvidia-t4 | operator | 2 | Add 1, Mul 1 |" in text
    assert "| nvidia-t4 | latency | 2 | 2 s | 3 s | 4 s |" in text
    assert "Licence: MIT" in text
    assert "- a note" in text


def test_a_card_has_a_plot_where_matplotlib_is_installed(mine, tmp_path):
    pytest.importorskip("matplotlib")
    table.build(mine(ROW), tmp_path / "out", ["mine"])
    card, plot = cards.write(tmp_path / "out", tmp_path / "cards", "mine")
    assert plot.name in card.read_text()
    assert "<svg" in plot.read_text()


def test_a_card_does_without_matplotlib(mine, monkeypatch, tmp_path):
    monkeypatch.setattr(cards, "find_spec", lambda name: None)
    table.build(mine(ROW), tmp_path / "out", ["mine"])
    (card,) = cards.write(tmp_path / "out", tmp_path / "cards", "mine")
    assert "![" not in card.read_text()
