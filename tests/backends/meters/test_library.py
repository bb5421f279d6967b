"""Finding meters: zeus' own classes, faked where hardware would answer, and this machine as it is."""

from __future__ import annotations

import sys
from unittest.mock import create_autospec

import pytest

from eopt.backends import target
from eopt.backends.base import Unknown
from eopt.backends.meters import rapl
from eopt.backends.meters.library import LibraryMeter, find
from eopt.ir.errors import UsageError

H100 = target.load("nvidia-h100-sxm")
NAMES = {"gpu": H100, "cpu": target.load("cpu-amd-epyc-9004"), "soc": target.load("apple-m1")}


@pytest.fixture
def device():
    """The package zeus.device; tests put fakes in place of what it finds."""
    pytest.importorskip("zeus")
    from zeus import device

    return device


@pytest.fixture
def gpus(device, monkeypatch):
    """Puts GPUs in place and returns the first of them."""

    def place(vendor: str = "NVIDIA", name: str = "NVIDIA H100 80GB HBM3", count: int = 1, **readings):
        from zeus.device.gpu import amd, nvidia

        kind, manager = {"NVIDIA": (nvidia.NVIDIAGPU, nvidia.NVIDIAGPUs), "AMD": (amd.AMDGPU, amd.AMDGPUs)}[vendor]
        found = []
        for _ in range(count):
            gpu = create_autospec(kind, instance=True)
            gpu.get_name.return_value = name
            gpu.supports_get_total_energy_consumption.return_value = True
            gpu.get_total_energy_consumption.return_value = 5_000_000
            gpu.get_instant_power_usage.return_value = 250_000
            gpu.get_average_power_usage.return_value = 240_000
            for read, value in readings.items():
                getattr(gpu, read).side_effect = value if isinstance(value, Exception) else None
                getattr(gpu, read).return_value = value
            found.append(gpu)
        fake = type(manager.__name__, (), {"gpus": found})()
        monkeypatch.setattr(device, "get_gpus", lambda: fake)
        return found[0]

    return place


def why(found) -> str:
    assert isinstance(found, Unknown)
    return "; ".join(found.reasons)


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("by_target", [False, True])
def test_a_machine_without_meters_says_what_is_missing(kind, by_target, device):
    """Where there is none; a machine that has one shows what it reads."""
    found = find(NAMES[kind] if by_target else kind)
    if not isinstance(found, Unknown):
        assert isinstance(found.energy_j(), float) or isinstance(found.power_w(), float)
        return
    assert {"gpu": "no GPU meter", "cpu": "no CPU meter", "soc": "no SoC meter"}[kind] in why(found)
    assert any(fix in why(found) for fix in ("install", "root only", "on the host", "kernel module"))


@pytest.mark.parametrize("kind", NAMES)
def test_without_the_library_the_extra_is_named(kind, monkeypatch):
    monkeypatch.setitem(sys.modules, "zeus", None)
    assert "pip install 'eopt[meters]'" in why(find(kind))


def test_no_such_kind():
    with pytest.raises(UsageError, match="no meters for 'tpu'; kinds are gpu, cpu, soc"):
        find("tpu")


def test_nvidia_readings_are_in_joules_and_watts(gpus):
    gpus()
    meter = find(H100)
    assert (meter.name, meter.scope, meter.wraps_j, meter.notes) == ("NVIDIA H100 80GB HBM3", "board", None, ())
    assert (meter.energy_j(), meter.power_w()) == (5000.0, 250.0)


def test_grace_hopper_reads_the_whole_module(gpus):
    gpus(name="NVIDIA GH200 480GB")
    assert find("gpu").notes == ("readings are of the whole module: GPU, CPU and their memory",)


def test_zero_is_no_reading(gpus):
    gpu = gpus()
    meter = find("gpu")
    gpu.get_instant_power_usage.return_value = 0
    gpu.get_total_energy_consumption.return_value = 0
    assert "power sensor: reads 0" in why(meter.power_w())
    assert "energy counter: reads 0" in why(meter.energy_j())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, "N/A"])
def test_what_is_no_number_is_no_reading(value):
    assert isinstance(LibraryMeter("x", "board", lambda: value).energy_j(), Unknown)


def test_a_driver_that_fails_later_gives_a_reason_and_no_exception(gpus):
    from zeus.device.gpu.common import ZeusGPULostError

    gpu = gpus()
    meter = find("gpu")
    gpu.get_total_energy_consumption.side_effect = ZeusGPULostError("GPU is lost\nsecond line")
    assert why(meter.energy_j()) == "NVIDIA H100 80GB HBM3: energy counter: GPU is lost"


def test_boards_without_a_counter_have_power_only(gpus):
    gpus(supports_get_total_energy_consumption=False)
    meter = find("gpu")
    assert isinstance(meter.energy_j(), Unknown)
    assert meter.power_w() == 250.0


def test_average_power_stands_in_for_instant_power_and_says_so(gpus):
    from zeus.device.gpu.common import ZeusGPUNotSupportedError

    gpus(get_instant_power_usage=ZeusGPUNotSupportedError("Not Supported"))
    meter = find("gpu")
    assert meter.power_w() == 240.0
    assert "average" in meter.notes[0]


def test_a_die_that_reports_nothing_is_no_meter(gpus):
    from zeus.device.gpu.common import ZeusGPUNotSupportedError as NotSupported

    none = NotSupported("GPU 1 is a chiplet of a dual-die board")
    gpus(
        vendor="AMD",
        name="AMD Instinct MI250X",
        supports_get_total_energy_consumption=False,
        get_instant_power_usage=none,
        get_average_power_usage=none,
    )
    assert "neither energy nor power" in why(find("gpu"))
    assert "chiplet of a dual-die board" in why(find("gpu"))


def test_amd_boards_of_two_dies_say_so(gpus):
    gpus(vendor="AMD", name="AMD Instinct MI250X")
    assert find(target.load("amd-mi250x")).notes == ("readings are of both dies of the board",)


def test_the_second_of_one_is_not_there(gpus):
    gpus()
    assert "GPU 1 is not among the 1 that are visible" in why(find("gpu", 1))


def test_a_target_of_another_vendor_is_not_metered_by_what_is_there(gpus):
    gpus()
    assert "GPUs are of nvidia, the target is of amd" in why(find(target.load("amd-mi300x")))
    assert "not of intel" in why(find(target.load("intel-b60")))


def test_a_gpu_that_cannot_be_asked_is_named(gpus):
    from zeus.device.gpu.common import ZeusGPUNoPermissionError

    gpus(get_name=ZeusGPUNoPermissionError("Insufficient Permissions"))
    assert "GPU 0: Insufficient Permissions" in why(find("gpu"))


def test_apple_energy_is_the_sum_of_the_parts_that_are_there(device, monkeypatch):
    from zeus.device.soc.apple import AppleSilicon, AppleSiliconMeasurement

    soc = create_autospec(AppleSilicon, instance=True)
    parts = {"cpu_total_mj": 1000, "performance_cores_mj": [900], "gpu_mj": 500, "dram_mj": 250, "ane_mj": None}
    soc.get_total_energy_consumption.return_value = AppleSiliconMeasurement(**parts)
    monkeypatch.setattr(device, "get_soc", lambda: soc)
    meter = find("soc")
    assert (meter.scope, meter.energy_j()) == ("package", 1.75)
    assert isinstance(meter.power_w(), Unknown)


@pytest.mark.parametrize("rail", [True, False])
def test_a_jetson_has_power_of_the_whole_board_or_no_meter(device, monkeypatch, rail):
    from zeus.device.soc.jetson import DirectPower, Jetson, JetsonMeasurement

    soc, power = create_autospec(Jetson, instance=True), create_autospec(DirectPower, instance=True)
    power.measure_power.return_value = 12_500.0
    soc.power_measurement = {"total_power_mw": power} if rail else {"gpu_power_mw": power}
    soc.get_total_energy_consumption.return_value = JetsonMeasurement(total_energy_mj=1.0)
    monkeypatch.setattr(device, "get_soc", lambda: soc)
    meter = find("soc")
    if not rail:
        assert "none of the whole board" in why(meter)
        return
    assert (meter.scope, meter.power_w()) == ("board", 12.5)
    assert isinstance(meter.energy_j(), Unknown)


@pytest.fixture
def zones(device, monkeypatch, tmp_path):
    """Puts RAPL zones in place, each a name and a counter in J, and returns zeus' CPUs."""

    def place(*named: tuple[str, float], range_uj: str = "262143328850"):
        from zeus.device.cpu.common import CpuDramMeasurement
        from zeus.device.cpu.rapl import RAPLCPU, RAPLCPUs

        cpus = create_autospec(RAPLCPUs, instance=True)
        cpus.rapl_dir, cpus.cpus = str(tmp_path), []
        for index, (name, energy_j) in enumerate(named):
            zone = tmp_path / f"intel-rapl:{index}"
            zone.mkdir()
            (zone / "name").write_text(f"{name}\n")
            (zone / "max_energy_range_uj").write_text(f"{int(range_uj) + (index if name == 'package-odd' else 0)}\n")
            cpu = create_autospec(RAPLCPU, instance=True)
            cpu.cpu_index = index
            cpu.get_total_energy_consumption.return_value = CpuDramMeasurement(energy_j * 1e3, 7e6)
            cpus.cpus.append(cpu)
        monkeypatch.setattr(device, "get_cpus", lambda: cpus)
        return cpus

    return place


def test_packages_add_up_without_dram_and_name_where_they_wrap(zones):
    zones(("package-0", 1000.0), ("package-1", 3000.0))
    meter = find("cpu")
    assert (meter.name, meter.scope, meter.energy_j()) == ("RAPL, 2 packages", "package", 4000.0)
    assert meter.wraps_j == pytest.approx(262143.32885)
    assert meter.notes == ("DRAM is left out",)
    assert isinstance(meter.power_w(), Unknown)


def test_the_platform_holds_its_packages_and_is_not_added(zones):
    zones(("package-0", 1000.0), ("psys", 3000.0))
    assert find("cpu").energy_j() == 1000.0


def test_two_dies_that_show_one_counter_count_once(zones):
    zones(("package-0-die-0", 1000.0), ("package-0-die-1", 1000.2), ("package-1-die-0", 1000.1))
    meter = find("cpu")
    assert meter.energy_j() == pytest.approx(2000.1)
    assert "1 of 3 zones mirror another's counter and are left out" in meter.notes


def test_two_dies_with_counters_of_their_own_add_up(zones):
    zones(("package-0-die-0", 1000.0), ("package-0-die-1", 1700.0))
    assert find("cpu").energy_j() == 2700.0


def test_packages_that_wrap_at_different_energies_name_none(zones):
    zones(("package-0", 1000.0), ("package-odd", 3000.0))
    assert find("cpu").wraps_j is None


def test_zones_of_which_none_is_a_package_are_no_meter(zones):
    zones(("psys", 3000.0))
    assert "is a package" in why(find("cpu"))


def test_counters_for_root_only_name_the_path(zones, device, monkeypatch):
    from zeus.device.cpu.common import ZeusCPUNoPermissionError

    def refused():
        raise ZeusCPUNoPermissionError("Can't read file due to permission error")

    monkeypatch.setattr(device, "get_cpus", refused)
    assert "/sys/class/powercap/intel-rapl/intel-rapl:0/energy_uj may be read by root only" in why(find("cpu"))
    zones(("package-0", 1.0)).cpus[0].get_total_energy_consumption.side_effect = PermissionError(13, "denied")
    assert "by root only" in why(find("cpu"))


@pytest.mark.parametrize(("flags", "said"), [("fpu hypervisor", "measure on the host"), ("fpu", "intel_rapl_msr")])
def test_a_virtual_machine_is_told_from_a_missing_module(flags, said, monkeypatch, tmp_path):
    (tmp_path / "cpuinfo").write_text(f"flags : {flags}\n")
    monkeypatch.setattr(rapl, "ROOT", tmp_path / "none")
    monkeypatch.setattr(rapl, "CPUINFO", tmp_path / "cpuinfo")
    assert said in rapl.absence(ValueError("RAPL unavailable"))
