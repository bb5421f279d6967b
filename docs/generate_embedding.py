"""Draw docs/figures/embedding.svg: what the shipped model makes of every GPU sheet, on two axes.

python docs/generate_embedding.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

from eopt.backends import target as targets
from eopt.costmodel import artifact, folds
from eopt.costmodel.embedding import device
from eopt.costmodel.samples import KINDS
from eopt.ir.errors import InputError

FIGURE = Path(__file__).parent / "figures/embedding.svg"
MEMBER = 0  # axes of different members have nothing in common
LABEL = (0.65, 0.13)  # width and height, in units of the axes
SHORT = ("nvidia-", "amd-", "intel-", "-pcie", "-sxm2", "-sxm")


def main() -> None:
    network = artifact.shipped().network
    known = network.weights[f"{MEMBER}/known"]
    centre, axes = known.mean(0), np.linalg.svd(known - known.mean(0), full_matrices=False)[2][:2]
    shares = np.linalg.svd(known - centre, compute_uv=False) ** 2
    others = [name for name in targets.shipped() if _drawable(name) and name not in network.devices]
    sheets = [network.sheet(MEMBER, device(targets.load(name))) for name in others]
    places = (np.concatenate([known, sheets]) - centre) @ axes.T
    mpl.rcParams |= {"svg.hashsalt": "eopt", "svg.fonttype": "none", "font.family": "sans-serif"}  # the same bytes
    figure, axis = plt.subplots(figsize=(10, 7.5))
    names = [*network.devices, *others]
    colours = _colours(names)
    for name, (x, y) in zip(names, places, strict=True):
        measured, colour = name in network.devices, colours[folds.generation(name)]
        axis.scatter(x, y, 42, facecolor=colour if measured else "none", edgecolor=colour, zorder=2 + measured)
    for number, (x, y) in enumerate(_apart(places[: len(known)])):
        axis.text(x, y, _short(names[number]), fontsize=7.5)
    for generation, colour in colours.items():
        axis.scatter([], [], 42, color=colour, label=generation)
    axis.scatter([], [], 42, facecolor="none", edgecolor="black", label="never measured")
    axis.legend(frameon=False, fontsize=8, loc="best")
    percent = 100 * shares[:2] / shares.sum()
    axis.set(xlabel=f"first axis ({percent[0]:.0f} % of the variance)", ylabel=f"second axis ({percent[1]:.0f} %)")
    axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(FIGURE, metadata={"Date": None})


def _apart(places: np.ndarray) -> np.ndarray:
    """Where labels go: right of their points, and above the labels that they would cover."""
    width, height = LABEL
    labels = places + np.array([0.06, 0.04])
    order = np.argsort(labels[:, 1])
    for rank, own in enumerate(order):
        for other in order[:rank]:
            covered = np.abs(labels[own] - labels[other]) < (width, height)
            labels[own, 1] = labels[other, 1] + height if covered.all() else labels[own, 1]
    return labels


def _drawable(name: str) -> bool:
    """True for GPUs whose sheet is complete enough to be embedded."""
    try:
        return targets.load(name).kind in KINDS and bool(device(targets.load(name)))
    except InputError:
        return False


def _colours(names: list[str]) -> dict[str, tuple[float, ...]]:
    """By generation, in the order of release."""
    released = {}
    for name in sorted(names, key=lambda name: targets.load(name).release_year or 0):
        released.setdefault(folds.generation(name), None)
    palette = mpl.colormaps["tab20"]
    return {generation: palette(number % 20) for number, generation in enumerate(released)}


def _short(name: str) -> str:
    for part in SHORT:
        name = name.replace(part, "")
    return name


if __name__ == "__main__":
    main()
