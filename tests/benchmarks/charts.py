"""Plots as SVG, for a page that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from tests.benchmarks.summary import Spread

_COLOURS = ("#0b57d0", "#c2410c", "#15803d", "#7e22ce", "#525252", "#b91c1c", "#0e7490", "#a16207")
_THIN = 'stroke="#111" fill="none"'
_WIDTH, _LABEL, _ROW = 860, 320, 24


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar from 0 to the median, with a line from the lower to the upper quartile."""

    label: str
    value: Spread
    ours: bool


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one line: x and y, both above 0."""

    label: str
    points: Sequence[tuple[float, float]]


def bars(title: str, found: Sequence[Bar], reference: str) -> str:
    """Horizontal bars, with a line at 1, the reference."""
    most = max(1.0, *(bar.value.high for bar in found)) * 1.02
    width, height = _WIDTH - _LABEL - 90, len(found) * _ROW + 30

    def x(value: float) -> float:
        return _LABEL + value / most * width

    parts = [_opening(height, title)]
    for number, bar in enumerate(found):
        top = number * _ROW + 4
        middle = top + 8
        low, end, high = x(bar.value.low), x(bar.value.middle), x(bar.value.high)
        colour = _COLOURS[0] if bar.ours else "#a3a3a3"
        parts += [
            f'<text x="{_LABEL - 8}" y="{middle + 4}" text-anchor="end">{escape(bar.label)}</text>',
            f'<rect x="{_LABEL}" y="{top}" width="{end - _LABEL:.1f}" height="16" fill="{colour}"/>',
            f'<path d="M{low:.1f} {middle}H{high:.1f}M{low:.1f} {top + 4}v8M{high:.1f} {top + 4}v8" {_THIN}/>',
            f'<text x="{high + 6:.1f}" y="{middle + 4}">{bar.value.middle:.2f}</text>',
        ]
    bottom = len(found) * _ROW + 2
    parts += [
        f'<path d="M{x(1):.1f} 0V{bottom}" stroke="#b91c1c" stroke-dasharray="4 3"/>',
        f'<text x="{x(1):.1f}" y="{bottom + 15}" text-anchor="middle" fill="#b91c1c">{escape(reference)} = 1</text>',
    ]
    return "".join([*parts, "</svg>"])


def lines(title: str, found: Sequence[Series], x_name: str, y_name: str) -> str:
    """Lines over logarithmic axes."""
    xs = [x for series in found for x, _ in series.points]
    ys = [y for series in found for _, y in series.points]
    left, top, width, height = 70, 26, 440, 210
    x_at = _logarithmic(min(xs), max(xs), left, left + width)
    y_at = _logarithmic(*_decades(min(ys), max(ys)), top + height, top)
    parts = [_opening(height + 80, title)]
    parts += [
        f'<text x="{left}" y="14" font-weight="bold">{escape(y_name)}</text>',
        f'<path d="M{left} {top}V{top + height}H{left + width}" stroke="#525252" fill="none"/>',
        f'<text x="{left + width / 2}" y="{top + height + 40}" text-anchor="middle">{escape(x_name)}</text>',
    ]
    for x in sorted(set(xs)):
        parts.append(f'<text x="{x_at(x):.1f}" y="{top + height + 18}" text-anchor="middle">{_short(x)}</text>')
    for y in _ticks(min(ys), max(ys)):
        parts.append(f'<path d="M{left} {y_at(y):.1f}h{width}" stroke="#e5e5e5"/>')
        parts.append(f'<text x="{left - 6}" y="{y_at(y) + 4:.1f}" text-anchor="end">{_short(y)}</text>')
    for number, series in enumerate(found):
        colour = _COLOURS[number % len(_COLOURS)]
        path = "L".join(f"{x_at(x):.1f} {y_at(y):.1f}" for x, y in series.points)
        parts.append(f'<path d="M{path}" stroke="{colour}" stroke-width="2" fill="none"/>')
        parts += [f'<circle cx="{x_at(x):.1f}" cy="{y_at(y):.1f}" r="3" fill="{colour}"/>' for x, y in series.points]
        text_at = top + 12 + number * 20
        parts.append(f'<path d="M{left + width + 20} {text_at}h20" stroke="{colour}" stroke-width="3"/>')
        parts.append(f'<text x="{left + width + 46}" y="{text_at + 4}">{escape(series.label)}</text>')
    return "".join([*parts, "</svg>"])


def _opening(height: float, title: str) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}">'


def _decades(low: float, high: float) -> tuple[float, float]:
    ticks = _ticks(low, high)
    return min(low, ticks[0]), max(high, ticks[-1])


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers from at most the lowest to at least the highest."""
    steps = [
        mantissa * 10.0**power
        for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for mantissa in (1, 2, 5)
    ]
    first = max((step for step in steps if step <= low), default=steps[0])
    last = min((step for step in steps if step >= high), default=steps[-1])
    return [step for step in steps if first <= step <= last]


def _logarithmic(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    span = math.log(high / low) or 1.0
    return lambda value: start + math.log(value / low) / span * (end - start)


def _short(value: float) -> str:
    for limit, suffix in ((1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:g}{suffix}"
    return f"{value:g}"
