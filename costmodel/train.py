"""Train the ensemble with torch. Devices count the same, whatever their rows; sheets are blurred while training.

There are two dozen devices and a million rows, so what is learnt about devices is what can go wrong: the sheet goes
through one linear map to a few numbers, noise of half a standard deviation on it keeps that map from telling devices
apart, and the latent of a device is small and switched off half of the time, so that the sheet alone has to do. The gap
of a device's host is never off and costs its absolute value: a slow host explains itself and leaves the others alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from eopt.backends import target as targets
from eopt.costmodel import gap, physics
from eopt.costmodel.embedding import SHEET_FEATURES, device
from eopt.costmodel.network import DENSE, POWER, POWER_INPUTS, Network, power_inputs
from eopt.costmodel.samples import GROUP, Samples
from eopt.costmodel.table import EXECUTORS, FEATURES, PRODUCTS

Array = np.ndarray[Any, Any]
Progress = Callable[[str, int, int], None]
FEWEST = 200  # samples of a family below which it gets no network
SMALLEST = 8  # samples of one device in a batch
FASTER = 10.0  # single numbers learn faster than layers
HOST_DECAY, GAP_DECAY = 0.3, 0.003
LEAST_STD = 0.3  # of a sheet feature; below it a difference between devices says nothing


@dataclass(frozen=True)
class Settings:
    """Of the training; chosen on devices left out inside of the training set (docs/cost-model.md).

    Attributes:
        encoder: of the sheet: learned, every feature as it is (`size` of them), or none. The last two are what the
            learned one has to beat (`costmodel/ablation.py`).
    """

    members: int = 3
    steps: int = 600
    batch: int = 2048
    size: int = 5
    hidden: int = 64
    noise: float = 0.5
    rate: float = 4e-3
    latent_decay: float = 0.02
    latent: bool = True
    encoder: Literal["learned", "sheet", "none"] = "learned"
    seed: int = 0


def train(found: Samples, settings: Settings, progress: Progress = lambda label, done, total: None) -> Network:
    """Fit the ensemble; the same samples and settings give the same bits on one machine.

    Raises:
        ValueError: there is nothing to learn from.
    """
    import torch

    used = np.unique(found.device)
    if not len(used):
        raise ValueError("no samples to train on")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in one order
    weights: dict[str, Array] = {}
    names = tuple(found.devices[place] for place in used)
    for member in range(settings.members):
        label = f"member {member + 1} of {settings.members}"
        fitted = _Member(torch, found, used, settings, settings.seed + member)
        fitted.run(lambda done, total, label=label: progress(label, done, total))  # type: ignore[misc]
        weights.update({f"{member}/{name}": array for name, array in fitted.arrays().items()})
    torch.set_num_threads(threads)
    return Network(weights, settings.members, names)


class _Member:
    """One network of the ensemble under training."""

    def __init__(self, torch: Any, found: Samples, used: Array, settings: Settings, seed: int) -> None:
        self.torch, self.settings = torch, settings
        torch.manual_seed(seed)
        self.rng = np.random.default_rng(seed)
        sheets = np.stack([device(targets.load(found.devices[place])).features for place in used])
        self.mean, self.std = sheets.mean(0), np.maximum(sheets.std(0), LEAST_STD)
        self.alike = np.ptp(sheets, axis=0) == 0
        self.sheets = torch.tensor((sheets - self.mean) / self.std)
        self.place = torch.tensor(np.searchsorted(used, found.device))
        self.seen = torch.tensor(found.seen)
        self.amounts = torch.tensor(found.amounts, dtype=torch.float32)
        self.log_s = torch.tensor(np.log(found.latency_s), dtype=torch.float32)
        self.watts = torch.tensor(found.power_w, dtype=torch.float32)
        self.tdp_w = torch.tensor([device(targets.load(found.devices[place])).tdp_w for place in used])
        self.pools = _pools(found)
        self.varied = {name: _varied(name, found.seen[np.concatenate(flat(pool))]) for name, pool in self.pools.items()}
        self._build()

    def _build(self) -> None:
        nn, size, hidden = self.torch.nn, self.settings.size, self.settings.hidden
        self.encoder = nn.Linear(len(SHEET_FEATURES), size)
        if self.settings.encoder != "learned":
            self._fix_encoder()
        self.latent = nn.Embedding(len(self.sheets), size)
        nn.init.zeros_(self.latent.weight)
        self.host = nn.Embedding(len(self.sheets), 1)
        nn.init.zeros_(self.host.weight)
        self.gap = self._zeros(gap.WEIGHTS)
        self.parts, self.shaped = nn.ModuleDict(), nn.ParameterDict()
        self.own_gap, self.own_start = nn.ParameterDict(), nn.ParameterDict()
        for name in self.pools:
            inputs, outputs = FEATURES + size, physics.KERNEL_OUTPUTS
            if name == POWER:
                inputs, outputs = POWER_INPUTS, physics.POWER_OUTPUTS
            else:
                self.shaped[name], self.own_start[name] = self._zeros(FEATURES), self._zeros(1)
                self.own_gap[name] = self._zeros(len(EXECUTORS))
            last = nn.Linear(hidden, outputs)
            nn.init.zeros_(last.bias)
            with self.torch.no_grad():
                last.weight *= 0.1  # begin at the prior
            self.parts[name] = nn.Sequential(
                nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), last
            )

    def _zeros(self, count: int) -> Any:
        return self.torch.nn.Parameter(self.torch.zeros(count))

    def _fix_encoder(self) -> None:
        init = self.torch.nn.init
        (init.eye_ if self.settings.encoder == "sheet" else init.zeros_)(self.encoder.weight)
        init.zeros_(self.encoder.bias)
        self.encoder.requires_grad_(False)

    def run(self, progress: Callable[[int, int], None]) -> None:
        """All steps."""
        torch, settings = self.torch, self.settings
        alone = [self.gap, *self.own_gap.values(), *self.own_start.values(), self.host.weight]
        groups = [
            {"params": [*self.parts.parameters(), *self.shaped.values()], "lr": settings.rate, "weight_decay": 1e-3},
            {"params": list(self.encoder.parameters()), "lr": settings.rate, "weight_decay": 1e-2},
            {"params": list(self.latent.parameters()), "lr": settings.rate, "weight_decay": 0.0},
            {"params": alone, "lr": FASTER * settings.rate, "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups)
        rates = [group["lr"] for group in groups]
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=settings.steps, pct_start=0.1)
        for step in range(settings.steps):
            optimizer.zero_grad()
            loss = self._penalty()
            for name, pool in self.pools.items():
                loss = loss + self._loss(name, torch.tensor(self._draw(pool)))
            loss.backward()
            optimizer.step()
            schedule.step()
            progress(step + 1, settings.steps)

    def _shaped(self, name: str) -> Any:
        """What never varied says nothing about the start of a kernel."""
        return self.shaped[name] * self.torch.tensor(self.varied[name][0], dtype=self.torch.float32)

    def _penalty(self) -> Any:
        """Of what is learned about devices and executors; the square root is an absolute value with a gradient at 0."""
        gaps = self.gap.pow(2).mean() + sum(own.pow(2).mean() for own in self.own_gap.values())
        hosts = self.torch.sqrt(self.host.weight.pow(2) + 1e-4).mean()
        latents = self.latent.weight.pow(2).sum(1).mean()
        return self.settings.latent_decay * latents + HOST_DECAY * hosts + GAP_DECAY * gaps

    def _draw(self, pool: list[list[Array]]) -> Array:
        each = max(SMALLEST, self.settings.batch // len(pool))
        return np.concatenate(
            [self.rng.choice(kind, max(SMALLEST // 2, each // len(kinds))) for kinds in pool for kind in kinds]
        )

    def _loss(self, name: str, rows: Any) -> Any:
        error = self._power_error(rows) if name == POWER else self._latency_error(name, rows)
        return self.torch.nn.functional.smooth_l1_loss(error, self.torch.zeros_like(error), beta=0.1)

    def _power_error(self, rows: Any) -> Any:
        inputs = power_inputs(self.torch, self.seen[rows], self.amounts[rows], self.log_s[rows].exp())
        watts = physics.power(self.torch, self.parts[POWER](inputs), self.tdp_w[self.place[rows]])
        return self.torch.log(watts / self.watts[rows])

    def _latency_error(self, name: str, rows: Any) -> Any:
        torch, settings = self.torch, self.settings
        place = self.place[rows]
        blurred = self.sheets[place] + settings.noise * torch.randn(len(rows), self.sheets.shape[1])
        z = self.encoder(blurred)
        if settings.latent:
            # half of the time the sheet alone, as for a device nobody has measured
            z = z + self.latent(place) * (torch.rand(len(rows), 1) > 0.5)
        seen, amounts = self.seen[rows], self.amounts[rows]
        inputs = seen[:, :FEATURES]
        outputs = self.parts[name](torch.cat([inputs, z], 1))
        kernel_s = physics.busy_s(torch, outputs, amounts, name in PRODUCTS)
        kernel_s = kernel_s + physics.start_s(torch, self.own_start[name], inputs @ self._shaped(name), amounts)
        learned = gap.learned(seen, self.gap, self.own_gap[name]) + self.host(place)[:, 0]
        gap_s = physics.gap_s(torch, gap.log_known(torch, seen), learned)
        return torch.log(physics.latency(torch, kernel_s, gap_s)) - self.log_s[rows]

    def arrays(self) -> dict[str, Array]:
        """The weights as the artefact holds them; inputs that never varied get none."""
        found = {
            "encoder/w": self.encoder.weight, "encoder/b": self.encoder.bias, "known": self.encoder(self.sheets),
            "latent": self.torch.cat([self.latent.weight, self.host.weight], 1), "gap": self.gap,
        }  # fmt: skip
        for name, part in self.parts.items():
            if name != POWER:
                found[f"{name}/gap"] = self.own_gap[name]
                found |= {f"{name}/start": self.own_start[name], f"{name}/start/w": self._shaped(name)}
            for number, layer in enumerate((part[0], part[2], part[4]), start=1):
                found |= {f"{name}/w{number}": layer.weight, f"{name}/b{number}": layer.bias}
        arrays = {name: tensor.detach().numpy().copy() for name, tensor in found.items()}
        arrays["encoder/w"][:, np.flatnonzero(self.alike)] = 0.0  # no two differ in it: unknown
        for name, varied in self.varied.items():
            self._settle(arrays, name, varied)
        return arrays | {"encoder/mean": self.mean, "encoder/std": self.std}

    def _settle(self, arrays: dict[str, Array], name: str, varied: tuple[Array, Array]) -> None:
        """A feature that was the same in all samples becomes part of the bias: what it would do is not known."""
        moves, value = varied
        first = arrays[f"{name}/w1"]
        fixed = np.flatnonzero(~moves)
        arrays[f"{name}/b1"] += first[:, fixed] @ value[fixed]
        first[:, fixed] = 0.0


def _varied(name: str, seen: Array) -> tuple[Array, Array]:
    """Of the first inputs of a family, which vary, and the values of one sample."""
    read = [*range(FEATURES), DENSE] if name == POWER else range(FEATURES)
    return np.ptp(seen[:, read], axis=0) > 0, seen[0, read]


def flat(pool: list[list[Array]]) -> list[Array]:
    """All kinds of all devices."""
    return [kind for kinds in pool for kind in kinds]


def _pools(found: Samples) -> dict[str, list[list[Array]]]:
    """Rows by family, device and kind; families with too few samples are left out. Power is one family."""
    columns = [found.frame[name].astype("string").fillna("").to_numpy() for name in GROUP]
    kinds = np.array(["|".join(row) for row in zip(*columns, strict=True)])
    powered = np.isfinite(found.power_w)
    pools = dict(_families(found, kinds))
    if powered.sum() >= FEWEST:
        pools[POWER] = _by_device(found, kinds, np.flatnonzero(powered))
    return pools


def _families(found: Samples, kinds: Array) -> Iterator[tuple[str, list[list[Array]]]]:
    for name in sorted(set(found.family)):
        rows = np.flatnonzero(found.family == name)
        if len(rows) >= FEWEST:
            yield name, _by_device(found, kinds, rows)


def _by_device(found: Samples, kinds: Array, rows: Array) -> list[list[Array]]:
    grouped: dict[int, dict[str, list[int]]] = {}
    for row in rows:
        grouped.setdefault(int(found.device[row]), {}).setdefault(kinds[row], []).append(int(row))
    return [[np.array(members) for members in kinds.values()] for kinds in grouped.values()]
