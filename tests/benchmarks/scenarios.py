"""The comparisons: contenders, references and loads."""

from __future__ import annotations

from dataclasses import replace

from tests.benchmarks.blocks import Comparison, Load, Side

ONE = Load("one by one")
AWAITED = Load("async one by one")
DELAYS = [0, 20]

_PEERS = ["raw socket", "http.client", "urllib3", "OpenAPI Generator", "openapi-python-client"]
_SYNC = [
    *_PEERS,
    "forge-realtime",
    "forge-realtime, HTTPTransport",
    "forge-realtime, httpx.Client",
    "forge-realtime, for_invocation each",
]
_ASYNC_PEERS = [
    "aiohttp",
    "httpx over httpx-aiohttp",
    "OpenAPI Generator, aiohttp",
    "httpx async, sniffio",
    "openapi-python-client async",
]
_ASYNC_OURS = ["forge-realtime async", "forge-realtime[aiohttp] async"]
_ASYNC_TRANSPORTS = [
    "forge-realtime async, AsyncHTTPTransport",
    "forge-realtime async, AiohttpTransport",
    "forge-realtime async, httpx.AsyncClient",
    "forge-realtime async, for_invocation each",
]
# The same transport with a ready request, without the cost of a client.
READY = [
    ("forge-realtime, HTTPTransport", "HTTPTransport, ready request"),
    ("forge-realtime", "own connection, ready request"),
]
READY_ASYNC = [
    ("forge-realtime async, AsyncHTTPTransport", "AsyncHTTPTransport, ready request"),
    ("forge-realtime async", "own async connection, ready request"),
    ("forge-realtime async, AiohttpTransport", "AiohttpTransport, ready request"),
    ("forge-realtime[aiohttp] async", "own aiohttp transport, ready request"),
]


def _against(reference: str, contenders: list[str], load: Load, pairs: int) -> list[Comparison]:
    return [Comparison(Side(name, load), Side(reference, load), pairs) for name in contenders]


def _flight(lanes: int, seconds: float, delay: int = 0) -> Load:
    suffix = f", {delay} ms" if delay else ""
    return Load(f"async {lanes} in flight{suffix}", lanes=lanes, seconds=seconds, delay=delay)


def _payload(load: Load, size: int, name: str, seconds: float, *, text: bool = False) -> Load:
    return replace(load, name=f"{load.name}, {name}", size=size, text=text, seconds=seconds)


def scenarios() -> dict[str, list[Comparison]]:
    """All comparisons of a full run, by the name of their group."""
    fifty, thousand = _flight(50, 0.15), _flight(500, 0.3)
    threads = Load("32 threads", lanes=32, seconds=0.15)
    peers = ["urllib3", "OpenAPI Generator", "openapi-python-client"]
    few = ["http.client", "OpenAPI Generator", "openapi-python-client", "forge-realtime"]
    few_async = ["aiohttp", "OpenAPI Generator, aiohttp", "openapi-python-client async", *_ASYNC_OURS]
    found = {
        # The reference against itself, too: what it is off 1 is noise.
        "sync": _against("httpx", ["httpx", *_SYNC], ONE, 40),
        "async": _against("httpx async", ["httpx async", *_ASYNC_PEERS, *_ASYNC_OURS, *_ASYNC_TRANSPORTS], AWAITED, 40),
        "ready": [
            *(Comparison(Side(name, ONE), Side(ready, ONE), 40) for name, ready in READY),
            *(Comparison(Side(name, AWAITED), Side(ready, AWAITED), 40) for name, ready in READY_ASYNC),
        ],
        "threads": _against("httpx", [*peers, "forge-realtime", "forge-realtime, HTTPTransport"], threads, 12),
        "flight-5": _against("httpx async", [*_ASYNC_PEERS, *_ASYNC_OURS], _flight(5, 0.1), 14),
        "flight-50": _against(
            "httpx async",
            ["httpx async", *_ASYNC_PEERS, *_ASYNC_OURS, "forge-realtime async, AsyncHTTPTransport"],
            fifty,
            10,
        ),
        # Each against itself: what becomes of its throughput with ten times as many calls.
        "flight-500": [
            Comparison(Side(name, thousand), Side(name, fifty), 3 if name == "httpx async" else 6)
            for name in ["httpx async", "aiohttp", "OpenAPI Generator, aiohttp", *_ASYNC_OURS]
        ],
        "delay": [
            *_against("httpx", ["OpenAPI Generator", "forge-realtime"], Load("20 ms", delay=20, seconds=0.15), 5),
            *_against(
                "httpx",
                [*peers, "forge-realtime"],
                replace(threads, name="32 threads, 20 ms", delay=20, seconds=0.2),
                6,
            ),
            *_against("httpx async", [*few_async, "httpx over httpx-aiohttp"], _flight(50, 1.0, delay=20), 4),
        ],
    }
    for label, size, text, seconds, pairs in (
        ("10 kB", 10_000, False, 0.05, 14),
        ("1 MB", 1_000_000, False, 0.1, 8),
        ("1 MB of text", 1_000_000, True, 0.1, 8),
    ):
        found.setdefault("payload", []).extend(
            [
                *_against("httpx", few, _payload(ONE, size, label, seconds, text=text), pairs),
                *_against("httpx async", few_async, _payload(AWAITED, size, label, seconds, text=text), pairs),
            ]
        )
    return found


def quick(comparisons: list[Comparison]) -> list[Comparison]:
    """The same with few pairs, to try something."""
    return [replace(comparison, pairs=max(3, comparison.pairs // 6)) for comparison in comparisons]
