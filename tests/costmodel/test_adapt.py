"""A few measurements of a device move its latent towards them, and little else."""

from __future__ import annotations

import numpy as np
import pytest

pd = pytest.importorskip("pandas")

from eopt.backends import target as targets
from eopt.costmodel.adapt import adapt
from eopt.costmodel.embedding import device
from eopt.costmodel.samples import Samples, samples

L4 = "nvidia-l4"


def frame(count: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(count):
        m, n, k = (int(2 ** rng.uniform(6, 12)) for _ in range(3))
        rows.append(("MatMul", [[m, k], [k, n]], "bfloat16"))
        rows.append(("Add", [[m, n], [m, n]], "float16"))
    made = pd.DataFrame(rows, columns=["op", "inputs", "dtype"])
    for name in ("weight_dtype", "math", "scale", "attrs", "energy_scope", "library"):
        made[name] = None
    return made.assign(
        phase="forward", device=L4, executor="vllm", source="test", latency_s=1.0, power_w=np.nan, level="operator"
    )


def truth(network, found: Samples, shift: float, latent: float) -> Samples:
    """Latencies of the same network with another latent and an offset."""
    chip = device(targets.load(L4))
    logs = [
        np.log(
            network.seconds(m, found.family, found.seen, found.amounts, network.embedding(m, chip, False) + latent)[0]
        )
        for m in range(network.members)
    ]
    seconds = np.exp(np.mean(logs, axis=0) + shift)
    return Samples(
        found.frame, found.family, found.seen, found.amounts, seconds, found.power_w, found.device, found.devices
    )


@pytest.mark.parametrize(("count", "left"), [(3, 0.6), (10, 0.5), (30, 0.5)])
def test_errors_shrink_on_operators_that_were_not_shown(random_model, count, left):
    """Six measurements move two embeddings and an offset less than twenty do: the prior holds them."""
    network = random_model(1, 0.5).network
    found = truth(network, samples(frame(80)), 0.3, np.float32(0.8))
    shown, hidden = found.take(np.arange(2 * count)), found.take(np.arange(2 * count, len(found.latency_s)))
    adapted = adapt(network, shown, device(targets.load(L4)))
    assert adapted.count == 2 * count and adapted.error_after < adapted.error_before
    chip = device(targets.load(L4))

    def error(latent, offset):
        logs = [
            np.log(
                network.seconds(
                    m, hidden.family, hidden.seen, hidden.amounts, network.embedding(m, chip, False) + latent.get(m, 0)
                )[0]
            )
            for m in range(network.members)
        ]
        return float(np.median(np.abs(np.mean(logs, axis=0) + offset - np.log(hidden.latency_s))))

    assert error(adapted.latent, adapted.offset) < left * error({}, 0.0)


def test_nothing_moves_where_the_sheet_is_right(random_model):
    network = random_model(1, 0.5).network
    found = truth(network, samples(frame(20)), 0.0, np.float32(0.0))
    adapted = adapt(network, found, device(targets.load(L4)))
    assert abs(adapted.offset) < 0.05
    assert max(float(np.abs(z).max()) for z in adapted.latent.values()) < 0.5


def test_no_measurements(random_model):
    found = samples(frame(1))
    with pytest.raises(ValueError, match="no measurements"):
        adapt(random_model(1, 0.5).network, found.take(np.zeros(0, dtype=int)), device(targets.load(L4)))
