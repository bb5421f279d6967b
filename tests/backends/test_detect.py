"""Detection of this machine, from what /proc/cpuinfo and NVML would say."""

from __future__ import annotations

from pathlib import Path

import pytest

from eopt.backends import detect

XEON = "model name : Intel(R) Xeon(R) Processor\ncpu MHz : 2300.0\nflags : fpu avx2 avx512f avx512_vnni\n"
ZEN = "model name : AMD EPYC 7763 64-Core Processor\ncpu MHz : 2450.0\nflags : fpu avx2\n"
PI = "Features : fp asimd asimdhp asimddp\nCPU part : 0xd0b\n"


def test_a_share_of_a_xeon():
    found = detect._cpu(XEON, 2)
    assert found.vector["float32"] == pytest.approx(2 * 64 * 2.3e9)
    assert found.matrix["int8"] == pytest.approx(4 * found.vector["float32"])
    assert {"vnni", "avx512"} <= found.features
    assert found.tdp_w == pytest.approx(270 * 2 / 40)
    assert "bandwidth_bytes_per_s" in found.imputed


def test_without_vnni_there_are_no_int8_kernels():
    found = detect._cpu(ZEN, 64)
    assert found.arch == "zen3"
    assert found.matrix == {}
    assert found.vector["float32"] == pytest.approx(64 * 32 * 2.45e9)


def test_arm_without_a_clock():
    found = detect._cpu(PI, 4)
    assert found.matrix["int8"] > 0
    assert {"neon", "dotprod", "neon_fp16"} <= found.features


def test_an_empty_cpuinfo_still_gives_a_target():
    assert detect._cpu("", 1).bandwidth_bytes_per_s > 0


@pytest.mark.parametrize(
    ("name", "memory_gb", "limit_w", "expected"),
    [
        ("NVIDIA H100 80GB HBM3", 80, 700, "nvidia-h100-sxm"),
        ("NVIDIA H100 PCIe", 80, 350, "nvidia-h100-pcie"),
        ("NVIDIA H200", 141, 700, "nvidia-h200-sxm"),
        ("NVIDIA A100-SXM4-40GB", 40, 400, "nvidia-a100-40gb-sxm"),
        ("NVIDIA A100 80GB PCIe", 80, 300, "nvidia-a100-80gb-pcie"),
        ("NVIDIA GeForce RTX 3090", 24, 350, "nvidia-rtx-3090"),
        ("NVIDIA RTX 6000 Ada Generation", 48, 300, "nvidia-rtx-6000-ada"),
        ("NVIDIA RTX A6000", 48, 300, "nvidia-rtx-a6000"),
        ("Tesla V100-SXM2-16GB", 16, 300, "nvidia-v100-16gb-sxm2"),
        ("Tesla T4", 15, 70, "nvidia-t4"),
        ("NVIDIA L4", 23, 72, "nvidia-l4"),
    ],
)
def test_gpus_by_name_memory_and_power(name, memory_gb, limit_w, expected):
    assert detect.match_gpu(name, memory_gb * 2**30, limit_w).name == expected


def test_a_gpu_nobody_has_a_sheet_for():
    assert detect.match_gpu("NVIDIA Z9000", 8e9, 100) is None


def test_this_machine_is_detected():
    found = detect.detect()
    assert found.vector["float32"] > 0
    assert detect.detect().name == found.name


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("vendor_id : AuthenticAMD\ncpu family : 23\nflags : avx2\n", "znver2"),
        ("vendor_id : AuthenticAMD\ncpu family : 25\nflags : avx2\n", "znver3"),
        ("vendor_id : AuthenticAMD\ncpu family : 25\nflags : avx2 avx512f avx512_vnni\n", "znver4"),
        ("vendor_id : AuthenticAMD\ncpu family : 26\nflags : avx2 avx512f avx512_vnni\n", "znver5"),
        ("vendor_id : AuthenticAMD\ncpu family : 26\nflags : avx2\n", "znver3"),  # its AVX-512 is hidden
        ("vendor_id : GenuineIntel\nmodel : 85\nflags : avx2 avx512f avx512_vnni\n", "cascadelake"),
        ("vendor_id : GenuineIntel\nmodel : 207\nflags : avx512f avx512_vnni amx_int8\n", "emeraldrapids"),
        ("CPU part : 0xd4f\nFeatures : asimd sve asimddp\n", "neoverse-v2"),
        (PI, "cortex-a76"),
    ],
)
def test_the_compiler_is_told_this_cpu_and_nothing_it_lacks(cpuinfo, expected):
    assert detect._cpu(cpuinfo, 2).tvm["mcpu"] == expected


def cache(folder: Path, cpu: int, index: int, level: int, size: str, shared: str) -> None:
    place = folder / f"cpu{cpu}/cache/index{index}"
    place.mkdir(parents=True)
    for name, text in (("level", str(level)), ("size", size), ("shared_cpu_list", shared)):
        (place / name).write_text(f"{text}\n")


def test_last_level_caches_are_counted_once_each(tmp_path):
    for cpu in range(4):
        cache(tmp_path, cpu, 2, 2, "512K", str(cpu))
        cache(tmp_path, cpu, 3, 3, "32768K", "0-1" if cpu < 2 else "2-3")
    assert detect.llc_bytes(tmp_path, {0, 1}) == 32 * 2**20
    assert detect.llc_bytes(tmp_path, {1, 2, 3}) == 64 * 2**20


def test_caches_nobody_describes(tmp_path):
    assert detect.llc_bytes(tmp_path, {0}) is None
    cache(tmp_path, 0, 0, 1, "large", "0")
    assert detect.llc_bytes(tmp_path, {0}) is None


def test_a_cache_that_was_read_is_no_estimate():
    found = detect._cpu(ZEN, 2, 32 * 2**20)
    assert found.l2_bytes == 32 * 2**20
    assert "l2_bytes" not in found.imputed
    assert "l2_bytes" in detect._cpu(ZEN, 2).imputed
