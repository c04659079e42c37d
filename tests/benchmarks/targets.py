"""The targets, and the verdict on a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from tests.benchmarks import open_streams, quota
from tests.benchmarks.copies import CHANGED, UNCHANGED
from tests.benchmarks.scenarios import READY, READY_ASYNC
from tests.benchmarks.summary import Spread, found, own, result

Results = dict[str, Any]
Value = Callable[..., Spread | None]

_OURS, _ASYNC, _AIOHTTP = "forge-realtime", "forge-realtime async", "forge-realtime[aiohttp] async"
_IDEAL = 50 / 0.020
"""Calls per second with 50 in flight, if the server takes 20 ms."""
_FIFTY_DELAYED = "async 50 in flight, 20 ms"


@dataclass(frozen=True, slots=True)
class Target:
    """A target and its measurement.

    Attributes:
        name: The subject.
        limit: The target.
        at_most: Whether the target is an upper limit.
        value: The measurement. `None`: not measured.
        digits: Decimals to show.
        unit: The unit of limit and value.
    """

    name: str
    limit: float
    at_most: bool
    value: Spread | None
    digits: int = 2
    unit: str = ""

    @property
    def verdict(self) -> str:
        """`met` (even by the worse quartile), `met by the median`, `missed` or `not measured`."""
        if self.value is None:
            return "not measured"
        sign = 1 if self.at_most else -1
        worse = self.value.high if self.at_most else self.value.low
        if sign * worse <= sign * self.limit:
            return "met"
        return "met by the median" if sign * self.value.middle <= sign * self.limit else "missed"


def targets(results: Results) -> Iterator[Target]:
    """Yield all targets."""
    yield from _of_calls(partial(_value, results))
    yield from _of_delayed_calls(results)
    yield from _of_costs(partial(_value, results))
    yield from _of_growth(results)


def _value(results: Results, group: str, name: str, load: str = "", reference: str = "") -> Spread | None:
    row = found(results, group, name, load, reference)
    return None if row is None else result(row)


def _of_calls(value: Value) -> Iterator[Target]:
    sync, of_httpx = value("sync", _OURS), "of httpx's time"
    yield Target("sync publish", 0.65, True, sync, unit=of_httpx)
    for peer in ("OpenAPI Generator", "openapi-python-client"):
        if (theirs := value("sync", peer)) is not None:
            yield Target(f"sync publish, ahead of {peer}", theirs.middle, True, sync, unit=of_httpx)
    if (theirs := value("threads", "OpenAPI Generator")) is not None:
        name = "32 threads on one client, ahead of OpenAPI Generator"
        yield Target(name, theirs.middle, False, value("threads", _OURS), unit="times httpx")
    for name, limit in ((_ASYNC, 0.55), (_AIOHTTP, 0.40)):
        yield Target(f"{name}, one by one", limit, True, value("async", name), unit=of_httpx)
    for name, limit in ((_ASYNC, 4.0), (_AIOHTTP, 9.0)):
        yield Target(f"{name}, 50 in flight", limit, False, value("flight-50", name), unit="times httpx")
    for name in (_ASYNC, _AIOHTTP):
        yield Target(f"{name}, 500 in flight", 0.9, False, value("flight-500", name), unit="of its throughput at 50")
    for name, ready in (*READY, *READY_ASYNC):
        ratio = value("ready", name, reference=ready)
        yield Target(f"{name}, over {ready}", 1.15, True, ratio, unit="of its time")


def _of_delayed_calls(results: Results) -> Iterator[Target]:
    for name in (_ASYNC, _AIOHTTP):
        row = found(results, "delay", name, _FIFTY_DELAYED)
        calls = None if row is None else _scaled(own(row), 1 / _IDEAL)
        yield Target(f"{name}, 50 in flight, server takes 20 ms", 0.85, False, calls, unit="of the ideal throughput")


def _of_costs(value: Value) -> Iterator[Target]:
    package = value("import", f"{_OURS}, the package alone")
    yield Target("import forge_realtime", 1.20, True, package, unit="of import httpx")
    name = "from forge_realtime import RealtimeClient"
    yield Target(name, 1.20, True, value("import", _OURS), unit="of import httpx")
    for name in (_OURS, _ASYNC):
        yield Target(f"memory after one call, {name}", 1.08, True, value("memory", name), unit="of httpx's")
    made = value("making a client", "RealtimeClient, a further one")
    yield Target("making a client for a plain-http address, httpcore loaded", 300, True, made, digits=0, unit="µs")
    yield Target("for_invocation", 5, True, value("for_invocation", "of 1 header"), digits=1, unit="µs")
    for name in (_OURS, _ASYNC, _AIOHTTP):
        for kind in ("text", "object"):
            # The body, a copy of it, and 1 % for everything else.
            peak = value("memory of 1 MB", f"{name}, {kind}")
            yield Target(f"peak memory of 1 MB, {kind}, {name}", 2.01, True, peak, unit="times the encoded body")
    yield Target(UNCHANGED, 1, True, value("generator", UNCHANGED), unit="s")
    yield Target(CHANGED, 15, True, value("generator", CHANGED), unit="s")


def _of_growth(results: Results) -> Iterator[Target]:
    def of(group: str, name: str) -> Spread | None:
        """Return the figure itself, not the ratio to few calls or streams."""
        row = found(results, group, name)
        return None if row is None else own(row)

    waiting, fewest = (f"{number:,} waiting" for number in (quota.WAITING[-1], quota.WAITING[0]))
    for where in quota.STORES:
        name = f"{waiting}, {where}"
        growth = _value(results, quota.CPU_OF_A_CALL, name)
        yield Target(f"{quota.CPU_OF_A_CALL}, {name}", 1.2, True, growth, unit=f"of that with {fewest}")
        yield Target(f"{quota.RATE_USED}, {name}", 0.98, False, of(quota.RATE_USED, name), digits=3)
        installations = f"{quota.MANY:,} installations, {where}, each"
        yield Target(f"quota, {installations}", 2.0, True, of(quota.MEMORY, installations), unit="KiB")
        released = f"{installations}, 10 s after its last operation"
        yield Target(f"quota, {released}", 0.1, True, of(quota.MEMORY, released), unit="KiB")
    many, most = (f"{number:,} open" for number in open_streams.STREAMS[1:])
    token = of(open_streams.CPU_OF_A_TOKEN, many)
    yield Target(f"{open_streams.CPU_OF_A_TOKEN}, {many}", 25, True, token, digits=1, unit="µs")
    yield Target(f"{open_streams.MEMORY}, {many}, each", 8, True, of(open_streams.MEMORY, many), digits=1, unit="KiB")
    # A garbage collection, at most.
    yield Target(f"{open_streams.IDLE}, {most}", 1, True, of(open_streams.IDLE, most), unit="ms of CPU in a second")


def _scaled(value: Spread, by: float) -> Spread:
    return Spread(value.low * by, value.middle * by, value.high * by, value.count)
