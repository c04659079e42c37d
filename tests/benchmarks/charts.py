"""Charts as SVG, and tables, for a self-contained page."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

from tests.benchmarks.summary import Spread

_COLOURS = ("#0b57d0", "#c2410c", "#15803d", "#7e22ce", "#525252", "#b91c1c", "#0e7490", "#a16207")
_THIN = 'stroke="#111" fill="none"'
_WIDTH, _LABEL, _ROW = 860, 320, 24
# Of charts with axes.
_LEFT, _TOP, _ACROSS, _DOWN = 70, 26, 440, 210


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar from 0 to the median, with a line between the quartiles."""

    label: str
    value: Spread
    ours: bool


@dataclass(frozen=True, slots=True)
class Series:
    """A line of points with positive coordinates."""

    label: str
    points: Sequence[tuple[float, float]]


def bars(title: str, found: Sequence[Bar], reference: str) -> str:
    """Draw horizontal bars, with a line at 1 for the reference."""
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
    """Draw lines over logarithmic axes."""
    xs = [x for series in found for x, _ in series.points]
    ys = [y for series in found for _, y in series.points]
    axes = _Axes(
        _logarithmic(min(xs), max(xs), _LEFT, _LEFT + _ACROSS),
        _logarithmic(*_decades(min(ys), max(ys)), _TOP + _DOWN, _TOP),
        sorted(set(xs)),
        _ticks(min(ys), max(ys)),
    )
    return _drawn(title, found, axes, x_name, y_name)


def timeline(
    title: str, found: Sequence[Series], x_name: str, y_name: str, shaded: tuple[float, float] | None = None
) -> str:
    """Draw lines over linear axes from 0. `shaded` is the time of a disturbance."""
    x_ticks, y_ticks = (_steps(max(point[place] for series in found for point in series.points)) for place in (0, 1))

    def x_at(value: float) -> float:
        return _LEFT + value / x_ticks[-1] * _ACROSS

    def y_at(value: float) -> float:
        return _TOP + _DOWN - value / y_ticks[-1] * _DOWN

    under = ""
    if shaded is not None:
        start, end = (x_at(value) for value in shaded)
        under = f'<rect x="{start:.1f}" y="{_TOP}" width="{end - start:.1f}" height="{_DOWN}" fill="#fef3c7"/>'
    return _drawn(title, found, _Axes(x_at, y_at, x_ticks, y_ticks), x_name, y_name, under)


@dataclass(frozen=True, slots=True)
class _Axes:
    x_at: Callable[[float], float]
    y_at: Callable[[float], float]
    xs: Sequence[float]
    ys: Sequence[float]


def _drawn(title: str, found: Sequence[Series], axes: _Axes, x_name: str, y_name: str, under: str = "") -> str:
    parts = [_opening(_DOWN + 80, title), under]
    parts += [
        f'<text x="{_LEFT}" y="14" font-weight="bold">{escape(y_name)}</text>',
        f'<path d="M{_LEFT} {_TOP}V{_TOP + _DOWN}H{_LEFT + _ACROSS}" stroke="#525252" fill="none"/>',
        f'<text x="{_LEFT + _ACROSS / 2}" y="{_TOP + _DOWN + 40}" text-anchor="middle">{escape(x_name)}</text>',
    ]
    for x in axes.xs:
        parts.append(f'<text x="{axes.x_at(x):.1f}" y="{_TOP + _DOWN + 18}" text-anchor="middle">{_short(x)}</text>')
    for y in axes.ys:
        parts.append(f'<path d="M{_LEFT} {axes.y_at(y):.1f}h{_ACROSS}" stroke="#e5e5e5"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{axes.y_at(y) + 4:.1f}" text-anchor="end">{_short(y)}</text>')
    for number, series in enumerate(found):
        colour = _COLOURS[number % len(_COLOURS)]
        at = [(axes.x_at(x), axes.y_at(y)) for x, y in series.points]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in at)
        parts.append(f'<path d="M{path}" stroke="{colour}" stroke-width="2" fill="none"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in at]
        text_at = _TOP + 12 + number * 20
        parts.append(f'<path d="M{_LEFT + _ACROSS + 20} {text_at}h20" stroke="{colour}" stroke-width="3"/>')
        parts.append(f'<text x="{_LEFT + _ACROSS + 46}" y="{text_at + 4}">{escape(series.label)}</text>')
    return "".join([*parts, "</svg>"])


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: tuple[int, ...] = ()) -> str:
    """Return an HTML table. The columns `numbers` are right-aligned."""

    def cells(kind: str, row: Sequence[str]) -> str:
        return "".join(
            f"<{kind}{' class=n' if place in numbers else ''}>{cell}</{kind}>" for place, cell in enumerate(row)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<table><tr>{cells('th', head)}</tr>{body}</table>"


def _opening(height: float, title: str) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}">'


def _decades(low: float, high: float) -> tuple[float, float]:
    ticks = _ticks(low, high)
    return min(low, ticks[0]), max(high, ticks[-1])


def _ticks(low: float, high: float) -> list[float]:
    """Return round numbers that enclose both."""
    steps = [
        mantissa * 10.0**power
        for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for mantissa in (1, 2, 5)
    ]
    first = max((step for step in steps if step <= low), default=steps[0])
    last = min((step for step in steps if step >= high), default=steps[-1])
    return [step for step in steps if first <= step <= last]


def _steps(most: float) -> list[float]:
    """Return even steps from 0 to at least the highest, four to ten of them."""
    step: float = next(step for step in _ticks(most / 10, most) if step >= most / 10) if most > 0 else 1.0
    return [number * step for number in range(math.ceil(most / step) + 1 if most > 0 else 2)]


def _logarithmic(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    span = math.log(high / low) or 1.0
    return lambda value: start + math.log(value / low) / span * (end - start)


def _short(value: float) -> str:
    for limit, suffix in ((1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:g}{suffix}"
    return f"{value:g}"
