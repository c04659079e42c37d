"""A local stand-in for the Realtime API of the Atlassian Forge egress sidecar.

It serves the operations of the derived OpenAPI document on a loopback port, checks every call against that document,
delivers events to WebSocket subscribers and injects faults. Install it with `pip install 'forge-realtime[emulator]'`.

    with Emulator() as emulator:
        os.environ["FORGE_EGRESS_PROXY_URL"] = emulator.url
        with emulator.subscribe("board-42") as subscription:
            publish_something()
            assert subscription.receive(timeout=2).payload == "moved"
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._http.routes import create_app
    from ._platform.authorization import Authorization
    from ._platform.errors import EmulatorError, SubscriptionClosed, SubscriptionRefused
    from ._platform.records import RecordedEvent, RecordedRequest
    from ._platform.settings import Settings
    from ._platform.stream_reader import StreamReader
    from ._platform.streams import RecordedStream
    from ._server.emulator import Emulator
    from ._server.subscription import ReceivedEvent, Subscription

__all__ = [
    "Authorization",
    "Emulator",
    "EmulatorError",
    "ReceivedEvent",
    "RecordedEvent",
    "RecordedRequest",
    "RecordedStream",
    "Settings",
    "StreamReader",
    "Subscription",
    "SubscriptionClosed",
    "SubscriptionRefused",
    "create_app",
]

_MODULES = {
    "Authorization": "_platform.authorization",
    "Emulator": "_server.emulator",
    "EmulatorError": "_platform.errors",
    "ReceivedEvent": "_server.subscription",
    "RecordedEvent": "_platform.records",
    "RecordedRequest": "_platform.records",
    "RecordedStream": "_platform.streams",
    "Settings": "_platform.settings",
    "StreamReader": "_platform.stream_reader",
    "Subscription": "_server.subscription",
    "SubscriptionClosed": "_platform.errors",
    "SubscriptionRefused": "_platform.errors",
    "create_app": "_http.routes",
}


def __getattr__(name: str) -> Any:
    # Lazy: the import stays cheap, and works without the extra's packages.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f".{_MODULES[name]}", __name__), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == __name__:
            raise
        raise ImportError(
            f"forge_realtime_emulator needs the emulator extra: pip install 'forge-realtime[emulator]' ({error})"
        ) from error


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
