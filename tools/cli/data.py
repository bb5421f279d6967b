"""Build the table of measurements the cost model learns from.

  eopt data list
  eopt data fetch neusight
  eopt data build --from ../data --out table --cards cards

Measurements are facts of others under licences of their own, so none are shipped: `fetch` downloads what a source
published, `build` turns a folder with the files of the sources into Parquet files of one schema."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from eopt.tools.cli import common, data_train

if TYPE_CHECKING:
    from eopt.costmodel.datasets.base import Source

_PINNED = re.compile(r"https://github\.com/([\w.-]+)/([\w.-]+), commit ([0-9a-f]{7,40})(?:, sha256 ([0-9a-f]{64}))?")
_CHUNK = 1 << 20
_TIMEOUT_S = 60


class Action(NamedTuple):
    """A sub-command."""

    summary: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the sub-commands and their options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, action in ACTIONS.items():
        sub = actions.add_parser(name, help=action.summary, description=action.summary, allow_abbrev=False)
        action.add_arguments(sub)
        common.add_json(sub)


def run(arguments: argparse.Namespace) -> int:
    """Run one sub-command."""
    return ACTIONS[arguments.action].run(arguments)


def table_folder() -> Path:
    """Where a table is built and read where nothing else is said."""
    return Path.home() / ".cache/eopt/table"


def _sources(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", nargs="*", metavar="SOURCE", help="names of sources; default all")


def _build_arguments(parser: argparse.ArgumentParser) -> None:
    _sources(parser)
    parser.add_argument("--from", dest="folder", type=Path, metavar="DIR", help="the data; default $EOPT_DATA")
    parser.add_argument(
        "--out", type=Path, default=table_folder(), metavar="DIR", help="for the table; default ~/.cache/eopt/table"
    )
    parser.add_argument("--cards", type=Path, metavar="DIR", help="write a data card of every source there")


def _build(arguments: argparse.Namespace) -> int:
    from eopt.costmodel.datasets import cards, table

    folder = _folder(arguments.folder)
    built = []
    for name in _wanted(folder, arguments.sources):
        start = perf_counter()
        found = table.build(folder, arguments.out, [name])[name]
        if arguments.cards:
            cards.write(arguments.out, arguments.cards, name)
        built.append({"source": name, "rows": found.rows, "workload_rows": found.workload_rows})
        if not arguments.json:
            figures = f"{found.rows:>9,} rows {found.workload_rows:>7,} of workloads"
            common.console().print(f"{name:<15}{figures} {perf_counter() - start:6.1f} s", markup=False)
    fingerprint = table.fingerprint(arguments.out)
    if arguments.json:
        common.print_json({"out": str(arguments.out), "sources": built, "fingerprint": fingerprint})
    else:
        common.console().print(f"{arguments.out}: sha256 {fingerprint}", markup=False, soft_wrap=True)
    return 0


def _folder(given: Path | None) -> Path:
    from eopt.ir.errors import InputError, UsageError

    folder = given or (Path(os.environ["EOPT_DATA"]) if os.environ.get("EOPT_DATA") else None)
    if folder is None:
        raise UsageError("data build: where are the measurements? say --from DIR, or set EOPT_DATA")
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    return folder


def _wanted(folder: Path, names: list[str]) -> list[str]:
    """Sources named, else all that the folder has."""
    from eopt.costmodel import datasets
    from eopt.ir.errors import InputError

    found = names or [name for name in datasets.names() if (folder / datasets.load(name).folder).is_dir()]
    if not found:
        raise InputError(f"{folder}: has the files of no source; eopt data list --json names their folders")
    return found


def _fetch_arguments(parser: argparse.ArgumentParser) -> None:
    _sources(parser)
    parser.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="for the archives; default here")
    parser.add_argument("--accept", action="store_true", help="the licences shown are accepted")


def _fetch(arguments: argparse.Namespace) -> int:
    """Say under what licence, and download where that is accepted."""
    from eopt.costmodel import datasets
    from eopt.ir.errors import UsageError

    sources = [datasets.load(name) for name in arguments.sources or datasets.names()]
    pinned = {source.name: _PINNED.findall(source.upstream) for source in sources}
    for source in sources:
        if not pinned[source.name] and arguments.sources:
            raise UsageError(f"{source.name} has no pinned commit: see {source.upstream}")
        common.console(stderr=True).print(f"{source.name}: licence {source.licence}; {source.upstream}", markup=False)
    if not arguments.accept:
        raise UsageError("data fetch: nothing was downloaded; --accept says that you accept the licence shown")
    fetched = [_download(source, pin, arguments.out) for source in sources for pin in pinned[source.name]]
    if arguments.json:
        common.print_json(fetched)
        return 0
    for one in fetched:
        verdict = "as pinned" if one["pinned"] else "not pinned"
        common.console().print(f"{one['file']}: sha256 {one['sha256']}, {verdict}", markup=False, soft_wrap=True)
    return 0


def _download(source: Source, pin: tuple[str, str, str, str], out: Path) -> dict[str, Any]:
    """The archive of one repository at its commit, checked where a hash is pinned."""
    from eopt.ir.errors import InputError
    from eopt.ir.onnx_out import atomic

    owner, repository, commit, expected = pin
    url = f"https://github.com/{owner}/{repository}/archive/{commit}.tar.gz"
    path = out / f"{source.name}-{repository}-{commit[:12]}.tar.gz"
    digest = sha256()
    with atomic(path) as file:
        for chunk in _chunks(url):
            digest.update(chunk)
            file.write(chunk)
        if expected and digest.hexdigest() != expected:
            raise InputError(f"{url}: its sha256 is {digest.hexdigest()}, pinned is {expected}; not kept")
    return {"source": source.name, "file": str(path), "sha256": digest.hexdigest(), "pinned": bool(expected)}


def _chunks(url: str) -> Iterator[bytes]:
    from http.client import HTTPException
    from urllib.request import urlopen

    from eopt.ir.errors import InputError

    try:
        with urlopen(url, timeout=_TIMEOUT_S) as response:
            while chunk := response.read(_CHUNK):
                yield chunk
    except (OSError, HTTPException) as error:
        raise InputError(f"{url}: cannot be downloaded ({error})") from None


def _list(arguments: argparse.Namespace) -> int:
    from eopt.costmodel import datasets

    fields = ("name", "folder", "licence", "upstream", "notes")
    found = [datasets.load(name) for name in datasets.names()]
    if arguments.json:
        common.print_json([{field: getattr(source, field) for field in fields} for source in found])
        return 0
    from rich.table import Column, Table

    shown = Table("source", "folder", "licence", Column("upstream", overflow="fold"))
    for source in found:
        shown.add_row(source.name, source.folder, source.licence, source.upstream)
    common.console().print(shown)
    return 0


ACTIONS = {
    "list": Action("name the sources", lambda parser: None, _list),
    "fetch": Action("download what a source published, at its pinned commit", _fetch_arguments, _fetch),
    "build": Action("write the table, one Parquet file for each source", _build_arguments, _build),
    "train": Action(data_train.SUMMARY, data_train.add_arguments, data_train.run),
}
