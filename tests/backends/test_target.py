"""Target sheets: complete, cited, consistent, and found by name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from eopt.backends import executor, target
from eopt.ir.errors import InputError, UsageError

# float32 lanes of one core by architecture: multiprocessors of compute parts of Pascal and Ampere have 64.
LANES = {"pascal": 128, "volta": 64, "turing": 64, "ampere": 128, "ada": 128, "hopper": 128, "blackwell": 128}
COMPUTE_PARTS = ("nvidia-p100", "nvidia-quadro-gp100", "nvidia-a100", "nvidia-a30")


def sheet(name: str) -> dict[str, Any]:
    return yaml.safe_load(files("eopt.backends.targets").joinpath(f"{name}.yaml").read_text())


def numbers(node: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        if not prefix and key in ("sources", "cite", "tvm"):
            continue
        if isinstance(value, dict):
            yield from numbers(value, f"{prefix}{key}.")
        elif isinstance(value, int | float):
            yield prefix + key


@pytest.mark.parametrize("name", target.shipped())
def test_every_sheet_loads_and_every_figure_has_a_source(name):
    loaded, raw = target.load(name), sheet(name)
    assert loaded.name == name
    assert loaded.bandwidth_bytes_per_s
    assert loaded.vector.get("float32")
    assert set(raw["cite"]) <= set(raw["sources"])
    cited = [field for fields in raw["cite"].values() for field in fields]
    uncited = [n for n in numbers(raw) if not any(n == field or n.startswith(f"{field}.") for field in cited)]
    assert uncited == []


@pytest.mark.parametrize("name", [name for name in target.shipped() if name.startswith("nvidia")])
def test_float32_peaks_agree_with_cores_and_clock(name):
    loaded = target.load(name)
    if not loaded.cores or not loaded.clock_boost_hz or loaded.arch not in LANES:
        return
    lanes = 64 if name.startswith(COMPUTE_PARTS) else LANES[loaded.arch]
    derived = loaded.cores * lanes * 2 * loaded.clock_boost_hz
    # sheets round, and quote another clock than the one a card of this name ships with
    assert loaded.vector["float32"] == pytest.approx(derived, rel=0.12)


def test_the_catalogue_is_wide():
    names = target.shipped()
    assert len(names) >= 100
    for wanted in ("nvidia-h100-sxm", "nvidia-h100-pcie", "nvidia-l4", "nvidia-l40s", "nvidia-a100-40gb-pcie",
                   "nvidia-a100-80gb-sxm", "nvidia-rtx-pro-6000-server", "amd-mi250", "intel-b60", "cpu-amd-epyc-9004",
                   "raspberry-pi-5", "apple-m2", "nvidia-jetson-agx-orin-64gb"):  # fmt: skip
        assert wanted in names


def test_figures_are_in_si_units():
    h100 = target.load("nvidia-h100-sxm")
    assert h100.memory_bytes == 80 * 2**30
    assert h100.bandwidth_bytes_per_s == 3.35e12
    assert h100.matrix["float16"] == 989.4e12, "dense: half of the sparse figure datasheets advertise"


@pytest.mark.parametrize("name", ["nvidia/nvidia-h100", "nvidia/nvidia-t4", "apple/m1-gpu"])
def test_tvm_tags_are_aliases(name):
    assert name in target.load(name).aliases


@pytest.mark.parametrize(
    ("name", "candidates"),
    [
        ("h100", "nvidia-h100-nvl, nvidia-h100-pcie, nvidia-h100-sxm"),
        ("nvidia-h100-smx", "nvidia-h100-sxm"),
        ("gtx-960", "nvidia/geforce-gtx-960"),
        ("nvidia/nvidia-h200", "nvidia/nvidia-h100"),
        ("zzz", ""),
    ],
)
def test_other_names_list_candidates(name, candidates):
    with pytest.raises(UsageError) as caught:
        target.load(name)
    assert candidates in str(caught.value)


GOOD = "name: x\nvendor: me\nmodel: X1\nkind: gpu\narch: a\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- a", "is a mapping of fields"),
        ("a: [", "not YAML"),
        (GOOD + "tpd_w: 3", "unknown field 'tpd_w'"),
        (GOOD.replace("kind: gpu", "kind: toaster"), "kind: 'toaster' is none of"),
        (GOOD.replace("name: x\n", ""), "name: missing"),
        (GOOD + "tdp_w: hot", "tdp_w: 'hot' is no sensible number"),
        (GOOD + "tdp_w: -1", "is no sensible number"),
        (GOOD + "tdp_w: .nan", "is no sensible number"),
        (GOOD + "memory: 3", "memory: expected a mapping"),
        (GOOD + "memory: {type: 3}", "memory.type: 3 is no text"),
        (GOOD + "memory: {speed: 3}", "memory: unknown field 'speed'; known are bandwidth_gb_per_s, gib, type"),
        (GOOD + "peak: 3", "peak: expected a mapping"),
        (GOOD + "peak: {vector: {float32: 0}}", "peak.vector.float32: 0 is no rate"),
        (GOOD + "peak: {sparse: {float32: -2}}", "peak.sparse.float32: -2 is no sensible number"),
        (GOOD + "features: fp8", "features: expected a list of texts"),
        (GOOD + "aliases: [3]", "aliases: expected a list of texts"),
        (GOOD + "sources: [a]", "sources: expected a mapping"),
        (GOOD + "peak: {vector: {float31: 1}}", "expected TFLOP/s for some of"),
        (GOOD + "tvm: !!python/object/apply:os.system ['true']", "not YAML"),
        ("x" * (2 << 20), "larger than a megabyte"),
    ],
)
def test_bad_sheets_name_file_and_field(tmp_path: Path, content, message):
    path = tmp_path / "board.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=r"board\.yaml") as caught:
        target.load(str(path))
    assert message in str(caught.value)
    target.load.cache_clear()


def test_a_sheet_of_ones_own(tmp_path: Path):
    path = tmp_path / "board.yaml"
    path.write_text(GOOD + "memory: {bandwidth_gb_per_s: 10}\npeak: {vector: {float32: 0.5}}")
    assert target.load(str(path)).vector == {"float32": 0.5e12}


def test_a_path_that_no_file_can_have():
    with pytest.raises(InputError, match="no name of a file"):
        target.load("a\0b.yaml")


def test_sparse_rates_are_kept_apart(tmp_path: Path):
    path = tmp_path / "board.yaml"
    path.write_text(GOOD + "lanes_per_core: 64\npeak: {vector: {float32: 1}, matrix: {int8: 2}, sparse: {int8: 4}}")
    found = target.load(str(path))
    assert (found.matrix, found.sparse, found.lanes_per_core) == ({"int8": 2e12}, {"int8": 4e12}, 64)


@pytest.fixture(scope="module")
def schema() -> jsonschema.Draft202012Validator:
    text = files("eopt.backends.targets").joinpath("schema.json").read_text(encoding="utf-8")
    jsonschema.Draft202012Validator.check_schema(json.loads(text))
    return jsonschema.Draft202012Validator(json.loads(text))


def test_the_schema_has_the_fields_the_parser_reads(schema):
    found = set()
    for name, described in schema.schema["properties"].items():
        found |= {f"{name}.{nested}" for nested in described.get("properties", ())} or {name}
    assert found == target.FIELDS
    assert tuple(schema.schema["$defs"]["rates"]["properties"]) == target.DTYPES
    assert schema.schema["properties"]["kind"]["enum"] == list(target.KINDS)


@pytest.mark.parametrize("name", target.shipped())
def test_the_schema_accepts_every_sheet(schema, name):
    schema.validate(sheet(name))


@pytest.mark.parametrize(
    "content",
    [
        "tpd_w: 3",
        "tdp_w: hot",
        "memory: {speed: 3}",
        "peak: {vector: {float31: 1}}",
        "peak: {matrix: {int8: 0}}",
        "features: fp8",
    ],
)
def test_the_schema_refuses_what_the_parser_refuses(schema, content):
    assert not schema.is_valid(yaml.safe_load(GOOD + content))
    with pytest.raises(InputError):
        target.parse(GOOD + content, "board.yaml")


def test_default_executors():
    wanted = {"nvidia-l4": "tensorrt", "nvidia-jetson-nano": "tensorrt", "amd-mi250": "torch-compile",
              "cpu-amd-epyc-9004": "onnxruntime", "raspberry-pi-5": "onnxruntime"}  # fmt: skip
    for name, engine in wanted.items():
        chosen = executor.default_for(target.load(name))
        assert chosen.name == engine
        assert chosen.runs_on(target.load(name))


def test_misspelt_executor():
    with pytest.raises(UsageError, match="did you mean tensorrt"):
        executor.load("tensort")
