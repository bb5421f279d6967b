"""A scatter plot of time and error as SVG."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

Dot = tuple[float, float, str, bool]  # time as a ratio, dB, name, ours

WIDTH, HEIGHT, MARGIN = 720, 480, 60
OURS, PEER = "#c2410c", "#475569"


def scatter(dots: Sequence[Dot], path: Path) -> None:
    """Write a plot of the dots of finite dB: time to the right, exactness upwards; better is up and left."""
    shown = [dot for dot in dots if math.isfinite(dot[1])]
    if not shown:
        return
    right = max(time for time, *_ in shown) * 1.05
    low, high = min(0.0, *(db for _, db, *_ in shown)), max(db for _, db, *_ in shown) * 1.05
    view = f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="11"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {view}>'
    axes = [
        f'<path d="M{MARGIN} {MARGIN / 2}V{HEIGHT - MARGIN}H{WIDTH - 10}" fill="none" stroke="black"/>',
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 15}">time × float32</text>',
        f'<text x="5" y="{MARGIN / 2 - 10}">SQNR dB</text>',
    ]
    marks = [mark for dot in shown for mark in _marks(dot, right, low, high)]
    path.write_text("\n".join((head, *axes, *_ticks(right, low, high), *marks, "</svg>\n")))


def _marks(dot: Dot, right: float, low: float, high: float) -> Iterator[str]:
    time, db, name, ours = dot
    x, y, colour = _x(time, right), _y(db, low, high), OURS if ours else PEER
    yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>'
    anchor, shift = ("end", -7) if x > WIDTH * 0.7 else ("start", 7)
    yield f'<text x="{x + shift:.1f}" y="{y + 4:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(name)}</text>'


def _ticks(right: float, low: float, high: float) -> Iterator[str]:
    for step in range(1, int(right / 0.25) + 1):
        yield f'<text x="{_x(step * 0.25, right):.1f}" y="{HEIGHT - MARGIN + 15}">{step * 0.25:g}</text>'
    for db in range(10 * math.ceil(low / 10), int(high) + 1, 10):
        yield f'<text x="{MARGIN - 25}" y="{_y(db, low, high) + 4:.1f}">{db}</text>'


def _x(time: float, right: float) -> float:
    return MARGIN + time / right * (WIDTH - MARGIN - 20)


def _y(db: float, low: float, high: float) -> float:
    return HEIGHT - MARGIN - (db - low) / (high - low) * (HEIGHT - 1.5 * MARGIN)
