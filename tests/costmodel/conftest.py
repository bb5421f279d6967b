"""A small model with random weights: everything about the cost model that does not need a trained one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from eopt.backends import target as targets
from eopt.costmodel import artifact, gap, physics
from eopt.costmodel.artifact import Artifact
from eopt.costmodel.embedding import SHEET_FEATURES, device
from eopt.costmodel.learned import Learned
from eopt.costmodel.network import POWER, POWER_INPUTS, SIMILAR, Network
from eopt.costmodel.samples import Samples, samples
from eopt.costmodel.table import EXECUTORS, FAMILIES, FEATURES
from eopt.costmodel.whole_head import PRIOR

MEASURED = ("nvidia-t4", "nvidia-v100-32gb-pcie", "nvidia-a100-40gb-pcie", "nvidia-a40", "nvidia-h100-sxm")
KNOWN = ("nvidia-a100-80gb-sxm", "nvidia-h100-sxm", "nvidia-l4")
SIZE, HIDDEN, MEMBERS = 3, 8, 2


def small_model(seed: int = 0, scale: float = 1.0) -> Artifact:
    """Weights of this order of magnitude, drawn at random; all families are covered."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: (scale * rng.standard_normal(shape)).astype(np.float32)
    sheets = np.stack([device(targets.load(name)).features for name in KNOWN])
    mean, std = sheets.mean(0), np.maximum(sheets.std(0), 0.3)
    weights: dict[str, np.ndarray] = {}
    for member in range(MEMBERS):
        encoder, bias = draw(SIZE, len(SHEET_FEATURES)), draw(SIZE)
        known = ((sheets - mean) / std @ encoder.T + bias).astype(np.float32)
        arrays = {"encoder/mean": mean, "encoder/std": std, "encoder/w": encoder, "encoder/b": bias, "known": known}
        arrays |= {"latent": draw(len(KNOWN), SIZE + 1), "gap": draw(gap.WEIGHTS)}
        for name in (*(name for name in FAMILIES if name not in SIMILAR), POWER):
            inputs, outputs = FEATURES + SIZE, physics.KERNEL_OUTPUTS
            if name == POWER:
                inputs, outputs = POWER_INPUTS, physics.POWER_OUTPUTS
            arrays |= {f"{name}/gap": draw(len(EXECUTORS)), f"{name}/start": draw(1), f"{name}/start/w": draw(FEATURES)}
            for number, (rows, columns) in enumerate(((HIDDEN, inputs), (HIDDEN, HIDDEN), (outputs, HIDDEN)), 1):
                arrays |= {f"{name}/w{number}": draw(rows, columns), f"{name}/b{number}": draw(rows)}
        weights |= {f"{member}/{name}": array for name, array in arrays.items()}
    executors = dict.fromkeys(FAMILIES, ("torch", "vllm"))
    spread = {kind: {name: {"unseen": 0.5, "known": 0.2} for name in FAMILIES} for kind in ("latency", "energy")}
    whole_spread = {"latency": 0.3, "energy": 0.4}
    return Artifact(Network(weights, MEMBERS, KNOWN), executors, spread, {"made": "by a test"}, PRIOR, whole_spread)


@pytest.fixture(scope="session")
def random_model() -> Callable[[int, float], Artifact]:
    return small_model


@pytest.fixture(scope="session")
def learned() -> Learned:
    return Learned(small_model())


@pytest.fixture
def in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a small model that every verb uses meanwhile."""
    artifact.save(small_model(), tmp_path / "small")
    monkeypatch.setenv(artifact.VARIABLE, str(tmp_path / "small"))
    artifact.shipped.cache_clear()
    yield tmp_path / "small"
    artifact.shipped.cache_clear()


@pytest.fixture(scope="session")
def found() -> Samples:
    return made_up()


def made_up() -> Samples:
    """Products whose time is that of the roofline at half of the peak, plus a launch; 1.3 times as long on the T4."""
    pd = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    rows = []
    for name in MEASURED:
        for _ in range(250):
            m, n, k = (int(2 ** rng.uniform(5, 13)) for _ in range(3))
            rows.append((name, "MatMul", [[m, k], [k, n]], "float16"))
    made = pd.DataFrame(rows, columns=["device", "op", "inputs", "dtype"])
    for column in ("weight_dtype", "math", "scale", "attrs", "library"):
        made[column] = None
    made = made.assign(phase="forward", executor="torch", source="test", latency_s=1.0, level="operator", noisy=False)
    made = made.assign(power_w=200.0, energy_scope="board")
    plain = samples(made)
    roofline = np.maximum(plain.amounts[:, 0] * 2, plain.amounts[:, 2] / plain.amounts[:, 3] * 1.2) + 4e-6
    slow = np.where(np.array(plain.devices)[plain.device] == "nvidia-t4", 1.3, 1.0)
    made["latency_s"] = roofline * slow
    return samples(made)
