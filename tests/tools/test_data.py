"""`eopt data list`, `fetch` and `build`, as users type them; nothing is downloaded."""

from __future__ import annotations

import json
import urllib.request
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from urllib.error import URLError

import pytest

from eopt.costmodel import datasets
from eopt.costmodel.datasets.base import Dataset, Source
from eopt.tools.cli import main

ARCHIVE = b"an archive"
COMMIT = "0123456789abcdef"
UPSTREAM = f"https://github.com/me/mine, commit {COMMIT}"
POWER = "dataset,network,batch_size,optimizer,power_limit,time_per_epoch,average_power\n"


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """Addresses that were asked for; each answers with the archive."""
    addresses: list[str] = []

    def answer(url: str, timeout: float) -> BytesIO:
        addresses.append(url)
        return BytesIO(ARCHIVE)

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    return addresses


def source(monkeypatch, upstream: str) -> None:
    found = Source("mine", "energy/mine", lambda folder: Dataset(None), upstream, "MIT")
    monkeypatch.setattr(datasets, "names", lambda: ["mine"])
    monkeypatch.setattr(datasets, "load", lambda name: found)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    place = tmp_path / "data/energy/zeus"
    place.mkdir(parents=True)
    for name in ("a40", "p100", "rtx6000", "v100"):
        (place / f"summary_power_{name}.csv").write_text(f"{POWER}squad,bert,8,adamw,150,20,100\n")
    return tmp_path / "data"


def test_sources_are_listed_with_their_licence(capsys):
    code, out, _ = run(capsys, "data", "list", "--json")
    listed = {entry["name"]: entry for entry in json.loads(out)}
    assert code == 0
    assert set(listed) == set(datasets.names())
    assert listed["zeus"]["licence"] == "Apache-2.0"
    code, out, _ = run(capsys, "data", "list")
    assert code == 0
    assert "energaizer" in out


def test_a_table_of_what_the_folder_has(capsys, folder, tmp_path):
    arguments = ("data", "build", "--from", folder, "--out", tmp_path / "table", "--cards", tmp_path / "cards")
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    assert "zeus" in out
    assert "sha256" in out
    assert "4 rows" in (tmp_path / "cards/zeus.md").read_text()
    code, out, _ = run(capsys, *arguments, "--json")
    assert json.loads(out)["sources"] == [{"source": "zeus", "rows": 4, "workload_rows": 0}]


def test_the_folder_comes_from_the_environment(capsys, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("EOPT_DATA", str(folder))
    assert run(capsys, "data", "build", "zeus", "--out", tmp_path / "table")[0] == 0
    assert (tmp_path / "table/rows-zeus.parquet").is_file()


def test_folders_that_are_not_there_are_named(capsys, tmp_path, monkeypatch):
    monkeypatch.delenv("EOPT_DATA", raising=False)
    code, _, err = run(capsys, "data", "build")
    assert (code, "say --from DIR" in err) == (2, True)
    code, _, err = run(capsys, "data", "build", "--from", tmp_path / "none")
    assert (code, "no such folder" in err) == (3, True)
    code, _, err = run(capsys, "data", "build", "--from", tmp_path)
    assert (code, "files of no source" in err) == (3, True)
    code, _, err = run(capsys, "data", "build", "zeus", "--from", tmp_path, "--out", tmp_path / "out")
    assert (code, "energy/zeus: no such folder" in err) == (3, True)


def test_a_wrong_action_or_source_is_refused(capsys):
    assert run(capsys, "data")[0] == 2
    assert run(capsys, "data", "eat")[0] == 2
    code, _, err = run(capsys, "data", "fetch", "zues")
    assert (code, "did you mean 'zeus'" in err) == (2, True)


def test_nothing_is_fetched_before_the_licence_is_accepted(capsys, asked, tmp_path, monkeypatch):
    source(monkeypatch, UPSTREAM)
    code, _, err = run(capsys, "data", "fetch", "mine", "--out", tmp_path)
    assert code == 2
    assert "licence MIT" in err
    assert "--accept" in err
    assert not asked


def test_an_archive_is_fetched_at_its_commit_and_its_hash_is_told(capsys, asked, tmp_path, monkeypatch):
    source(monkeypatch, UPSTREAM)
    code, out, _ = run(capsys, "data", "fetch", "mine", "--accept", "--out", tmp_path)
    assert code == 0
    assert asked == [f"https://github.com/me/mine/archive/{COMMIT}.tar.gz"]
    assert f"sha256 {sha256(ARCHIVE).hexdigest()}, not pinned" in out
    assert (tmp_path / f"mine-mine-{COMMIT[:12]}.tar.gz").read_bytes() == ARCHIVE


def test_a_pinned_hash_is_checked(capsys, asked, tmp_path, monkeypatch):
    source(monkeypatch, f"{UPSTREAM}, sha256 {sha256(ARCHIVE).hexdigest()}")
    code, out, _ = run(capsys, "data", "fetch", "mine", "--accept", "--out", tmp_path, "--json")
    assert (code, json.loads(out)[0]["pinned"]) == (0, True)
    source(monkeypatch, f"{UPSTREAM}, sha256 {'0' * 64}")
    code, _, err = run(capsys, "data", "fetch", "mine", "--accept", "--out", tmp_path / "again")
    assert (code, "cannot be written" in err) == (3, True)
    (tmp_path / "again").mkdir()
    code, _, err = run(capsys, "data", "fetch", "mine", "--accept", "--out", tmp_path / "again")
    assert (code, "not kept" in err) == (3, True)
    assert not list((tmp_path / "again").iterdir())


def test_a_source_without_a_commit_and_a_dead_line_are_told(capsys, tmp_path, monkeypatch):
    source(monkeypatch, "https://github.com/me/mine, head of some day")
    code, _, err = run(capsys, "data", "fetch", "mine", "--accept")
    assert (code, "no pinned commit" in err) == (2, True)
    source(monkeypatch, UPSTREAM)

    def dead(url: str, timeout: float) -> BytesIO:
        raise URLError("no route")

    monkeypatch.setattr(urllib.request, "urlopen", dead)
    code, _, err = run(capsys, "data", "fetch", "mine", "--accept", "--out", tmp_path)
    assert (code, "cannot be downloaded" in err) == (3, True)
    assert not list(tmp_path.iterdir())
