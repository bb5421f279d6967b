"""TVM targets: read without TVM, turned into targets of ours, and back."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eopt.backends import detect, target, tvm_target, tvm_text
from eopt.backends.impute import completed
from eopt.backends.target import Target
from eopt.costmodel.embedding import device
from eopt.costmodel.learned import current
from eopt.costmodel.service import answer
from eopt.ir.errors import InputError, UsageError

BANDWIDTH, FLOAT32 = "memory.bandwidth_gb_per_s", "peak.vector.float32"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("nvidia/nvidia-h100", "nvidia-h100-sxm"),
        ("nvidia/nvidia-v100", "nvidia-v100-16gb-sxm2"),
        ("raspberry-pi/4b-aarch64", "raspberry-pi-4"),
        ('{"tag": "nvidia/nvidia-h100", "l2_cache_size_bytes": 62914560}', "nvidia-h100-sxm-l2-62914560"),
        ('{"tag": "nvidia/nvidia-h100", "l2_cache_size_bytes": 52428800}', "nvidia-h100-sxm"),
        ("nvidia/nvidia-a100 -max_num_threads=512", "nvidia-a100-40gb-sxm"),
        ("cuda -model=1080ti", "nvidia-gtx-1080-ti"),
        ('{"kind": "cuda", "model": "nvidia-l4"}', "nvidia-l4"),
        ("cuda -arch=sm_86 -max_num_threads=1024", "tvm-cuda-sm_86"),
        ('{"kind": "cuda", "arch": "sm_90a", "max_shared_memory_per_block": 49152}', "tvm-cuda-sm_90"),
        ("nvptx -mcpu=sm_86", "tvm-cuda-sm_86"),
        ("rocm -mcpu=gfx90a", "tvm-rocm-gfx90a"),
        ("metal", "tvm-metal"),
        ("nvidia/geforce-gtx-960", "nvidia-geforce-gtx-960"),
        ("llvm -mcpu=znver4", "cpu-amd-epyc-9004"),
        ("llvm -mcpu=znver4 -num-cores=8", "cpu-amd-epyc-9004-8core"),
        ("llvm -mcpu znver4 --num-cores 8", "cpu-amd-epyc-9004-8core"),
        ("llvm -mcpu=neoverse-n1", "cpu-aws-graviton2"),
        ("aws/cpu/c5.large", "cpu-intel-xeon-skylake-1core"),
        ("llvm -mcpu=znver4 -vector-width=256 -num-cores=8", "cpu-amd-epyc-9004-8core-vector256"),
    ],
)
def test_any_form_names_a_target_which_is_found_by_that_name_again(text, name):
    found, again = target.load(text), target.load(name)
    assert found.name == again.name == name
    assert replace(found, tvm=None, sources={}, aliases=()) == replace(again, tvm=None, sources={}, aliases=())


@pytest.mark.parametrize("text", ["llvm", '{"kind": "llvm"}', "llvm -mcpu=native", "cpu"])
def test_a_cpu_without_a_name_is_this_machine(text):
    here = detect.cpu()
    found = target.load(here.name if text == "cpu" else text)
    assert (found.name, found.vector) == (here.name, here.vector)
    assert tvm_target.tvm_target(found)["mcpu"] == here.tvm["mcpu"] != "native"


def test_what_is_written_wins_over_the_sheet_and_is_listed():
    found = target.load('{"tag": "nvidia/nvidia-h100", "l2_cache_size_bytes": 62914560, "arch": "sm_80"}')
    assert found.l2_bytes == 62914560
    assert found.sources["tvm"] == (
        "as written: l2_cache_size_bytes 62914560 in the place of 52428800; arch sm_80 in the place of sm_90a"
    )
    assert tvm_target.tvm_target(found)["arch"] == "sm_80"


def test_what_a_tag_says_does_not_win_over_the_sheet():
    tagged, sheet = target.load("nvidia/nvidia-b100 -max_num_threads=512"), target.load("nvidia-b100-sxm")
    assert "l2_cache_size_bytes" in tvm_text.tags()["nvidia/nvidia-b100"]
    assert (tagged.name, tagged.l2_bytes) == (sheet.name, sheet.l2_bytes)


def test_a_tag_of_a_device_of_its_own_says_what_it_says():
    assert target.load("nvidia/jetson-agx-thor").l2_bytes == 33554432


def test_cores_of_a_cpu_are_a_share_of_its_sheet():
    whole, part = target.load("cpu-amd-epyc-9004"), target.load("llvm -mcpu=znver4 -num-cores=8")
    assert part.vector["float32"] == pytest.approx(whole.vector["float32"] * 8 / whole.cores)
    assert part.tdp_w == pytest.approx(whole.tdp_w * 8 / whole.cores)
    assert part.bandwidth_bytes_per_s > whole.bandwidth_bytes_per_s * 8 / whole.cores
    assert {"bandwidth_bytes_per_s", "l2_bytes", "tdp_w"} <= part.imputed


def test_narrower_vectors_have_less_of_a_peak():
    whole, half = target.load("cpu-amd-epyc-9004"), target.load("llvm -mcpu=znver4 -vector-width=256")
    assert half.vector["float32"] == whole.vector["float32"] / 2
    assert target.load("llvm -mcpu=znver4 -vector-width=512").name == whole.name


def test_a_device_without_a_sheet_has_a_wider_interval_and_says_why():
    unknown, known = target.load("nvidia/geforce-gtx-960"), target.load("nvidia-gtx-1070")
    query = {"op": "MatMul", "inputs": [[512, 1024], [1024, 4096]], "dtype": "float32"}
    [wide], [narrow] = (answer([query], sheet, None, current()) for sheet in (unknown, known))
    assert device(unknown).log_uncertainty > device(known).log_uncertainty
    assert wide["latency_s_hi"] / wide["latency_s_lo"] > 4 * narrow["latency_s_hi"] / narrow["latency_s_lo"]
    assert {"bandwidth_bytes_per_s imputed", "cores imputed", "tdp_w imputed"} <= set(wide["reasons"])
    assert completed(unknown).imputed["vector.float32"] > 1


NOTHING_KNOWN = [
    "qcom/hexagon-v75", "aws/trn1/trn1.2xlarge", "vulkan", "opencl -device=mali", "webgpu", "arm/rk3399", "composite",
    "riscv/sifive-u74", "llvm -mcpu=haswell", "rocm", "cuda -arch=sm_99", "llvm -mtriple=aarch64-linux-gnu",
]  # fmt: skip


@pytest.mark.parametrize("text", NOTHING_KNOWN)
def test_devices_nothing_is_known_of(text):
    with pytest.raises(UsageError, match=f"{BANDWIDTH} and {FLOAT32} are missing: write a sheet"):
        target.load(text)


def test_a_sheet_of_ones_own_may_have_the_tag(tmp_path, monkeypatch):
    lines = "name: dsp\nvendor: q\nmodel: V75\nkind: soc\narch: v75\naliases: [qcom/hexagon-v75]\n"
    (tmp_path / "dsp.yaml").write_text(lines + "memory: {bandwidth_gb_per_s: 50}\npeak: {vector: {float32: 1}}\n")
    monkeypatch.setenv("EOPT_TARGETS", str(tmp_path))
    target.load.cache_clear()
    assert target.load("qcom/hexagon-v75").name == "dsp"
    assert target.load("qcom/hexagon-v75 -num-cores=4").tvm["vtcm-capacity"] == 8388608
    target.load.cache_clear()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("llvm -mcpuu=znver4", "unknown option 'mcpuu'; did you mean mcpu"),
        ("llvm -mcpu=a -mcpu=b", "'mcpu' is given twice"),
        ("llvm znver4 -mcpu=a", "'znver4' is no option; write -name=value"),
        ("llvm -num-cores=many", "num-cores: 'many' is no int"),
        ("llvm -num-cores=0", "num-cores: 0 is no sensible number"),
        ("llvm -mcpu='zn", "no closing quotation"),
        ("lvm -mcpu=znver4", "'lvm' is no kind or tag; did you mean llvm"),
        ('{"kind": "cuda", "kind": "llvm"}', "'kind' is given twice"),
        ('{"kind": "cuda", "sm_count": 132}', "unknown option 'sm_count'"),
        ('{"kind": "cuda", "max_num_threads": "many"}', "max_num_threads: 'many' is no int"),
        ('{"kind": "cuda", "max_num_threads": true}', "max_num_threads: True is no int"),
        ('{"kind": "cuda", "arch": NaN}', "arch: nan is no str"),
        ('{"kind": "cuda", "arch": "sm_\\u0007"}', "is no str"),
        ('{"kind": "llvm", "num-cores": 9007199254740993}', "is no int"),
        ('{"kind": "cuda", "host": {"kind": "llvm", "host": {"kind": "llvm"}}}', "host: {'kind': 'llvm'} is no"),
        ('{"tag": "nvidia/nvidia-h101"}', "'nvidia/nvidia-h101' is no tag; did you mean nvidia/nvidia-h100"),
        ('{"tag": "nvidia/nvidia-h100", "kind": "llvm"}', "kind llvm, but nvidia/nvidia-h100 is cuda"),
        ('{"arch": "sm_80"}', "no kind is given"),
        ('{"kind": ', "not JSON"),
        ("{" + '"host": {' * 200, "not JSON"),
        ('{"a":' * 800, "not"),
        ("llvm -mcpu=" + "x" * 5000, "4096 characters at most"),
        ("[1]", "no target"),
    ],
)
def test_bad_targets_say_what_is_wrong(text, message):
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        target.load(text)
    assert len(str(caught.value)) < 600
    assert "\n" not in str(caught.value)


WORDS = st.sampled_from([
    "llvm", "cuda", "rocm", "metal", "-mcpu=", "-arch=", "sm_86", "znver4", "native", " ", "-8core", "-host=", "-l2-",
    "nvidia/nvidia-h100", "tvm-cuda-", "-num-cores=3", '{"kind":', '"llvm"', "}", ",", ".yaml", "cpu-amd-epyc-9004",
    "9" * 30, "\0", "\ud800", "'", "=", "-vector",
])  # fmt: skip
TEXTS = st.text(max_size=60) | st.lists(WORDS, max_size=8).map("".join)
VALUES = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), st.lists, max_leaves=3)
OPTIONS = st.dictionaries(
    st.sampled_from(["kind", "tag", "mcpu", "arch", "host", "num-cores", "model", "keys", "x"]), VALUES
)


@given(TEXTS | OPTIONS.map(json.dumps))
def test_any_text_is_a_target_or_a_named_error(text):
    try:
        found = target.load(text)
    except (UsageError, InputError) as error:
        assert "\n" not in str(error)
        str(error).encode()
        return
    assert isinstance(found, Target)
    assert re.fullmatch(r"[a-z0-9][a-z0-9._-]*", found.name)


@pytest.mark.parametrize("name", target.shipped())
def test_the_tvm_target_of_every_sheet_is_that_sheet(name):
    written = tvm_target.tvm_target(target.load(name))
    found = target.load(json.dumps(written))
    assert (found.name, found.imputed) == (name, frozenset())
    assert tvm_target.tvm_target(found) == written
    if written["kind"] == "llvm":
        assert written["num-cores"] == found.cores
    if written["kind"] == "cuda":
        assert {"arch", "max_shared_memory_per_block", "registers_per_block"} <= written.keys()


def test_a_sheet_that_names_no_tvm_target():
    sheet = replace(target.load("nvidia-l4"), name="mine", tvm=None)
    with pytest.raises(UsageError, match="target mine: tvm: missing"):
        tvm_target.tvm_target(sheet)
    with pytest.raises(UsageError, match="target mine: tvm: TVM target: unknown option 'speed'"):
        tvm_target.tvm_target(replace(sheet, tvm={"kind": "cuda", "speed": 3}))
    assert tvm_target.tvm_target(replace(sheet, tvm="nvidia/nvidia-t4"))["arch"] == "sm_75"


def test_every_tag_is_a_target_or_says_what_is_missing():
    found, refused = 0, 0
    for tag in tvm_text.tags():
        try:
            sheet = target.load(tag)
        except UsageError as error:
            assert f"aliases: [{tag}]" in str(error)
            refused += 1
            continue
        found += 1
        assert completed(sheet).bandwidth_bytes_per_s > 0
        assert target.load(sheet.name).vector == sheet.vector
    assert (found + refused, found > 250) == (287, True)


def test_tvm_is_not_needed():
    code = (
        "import sys; from eopt.backends.target import load; load('nvidia/nvidia-h100'); sys.exit('tvm' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_the_installed_tvm_has_these_kinds_and_tags():
    pytest.importorskip("tvm")
    from eopt.backends.tvm import tags

    found = tags.read()
    assert found["tags"] == tvm_text.tags()
    for kind, options in found["kinds"].items():
        assert options == tvm_text.options(kind)


@pytest.mark.slow
def test_the_installed_tvm_takes_every_target_of_ours():
    pytest.importorskip("tvm")
    from tvm.target import Target as TVMTarget

    for name in [*target.shipped(), "auto", "nvidia/geforce-gtx-960", "nvidia/jetson-agx-thor", "tvm-rocm-gfx90a"]:
        written = tvm_target.tvm_target(target.load(name))
        assert str(TVMTarget(written).kind.name) == written["kind"]


@pytest.mark.slow
def test_attributes_make_the_target_of_the_tag():
    pytest.importorskip("tvm")
    from tvm.target import Target as TVMTarget

    from eopt.backends.tvm.tags import plain

    for tag, attributes in tvm_text.tags().items():
        assert plain(TVMTarget(dict(attributes)).export()) == {**plain(TVMTarget(tag).export()), "tag": ""}
