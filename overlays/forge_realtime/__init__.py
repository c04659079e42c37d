"""Python client for the Atlassian Forge Realtime API, for services in Forge Containers.

Each name is loaded at its first use, and what it stands on with it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from ._version import __version__

if TYPE_CHECKING:
    from ._core.attempts import Attempt, StreamReport
    from ._core.authorization import Authorization
    from ._core.errors import (
        Delivery,
        ForgeRealtimeError,
        InvalidTokenError,
        NoInvocationError,
        NoResponseError,
        OverQuotaError,
        RateLimitedError,
        RejectedError,
        ResponseError,
        ServerError,
        StreamError,
        StreamFullError,
        TimedOutError,
        UnexpectedResponseError,
        UsageError,
    )
    from ._core.invocation import Invocation, current_invocation
    from ._core.policy import RetryPolicy
    from ._core.stop import StreamHandle
    from ._document import DOCUMENT as __document__  # noqa: N811 (a module attribute, like __version__)
    from ._quota.limiter import Quota
    from ._realtime.async_client import AsyncRealtimeClient
    from ._realtime.client import RealtimeClient
    from ._realtime.results import PublishResult, RealtimeToken, ResponseInfo
    from ._streams.async_stream import AsyncPrivateStream, AsyncStream
    from ._streams.stream import PrivateStream, Stream

__all__ = [
    "AsyncPrivateStream",
    "AsyncRealtimeClient",
    "AsyncStream",
    "Attempt",
    "Authorization",
    "Delivery",
    "ForgeRealtimeError",
    "InvalidTokenError",
    "Invocation",
    "NoInvocationError",
    "NoResponseError",
    "OverQuotaError",
    "PrivateStream",
    "PublishResult",
    "Quota",
    "RateLimitedError",
    "RealtimeClient",
    "RealtimeToken",
    "RejectedError",
    "ResponseError",
    "ResponseInfo",
    "RetryPolicy",
    "ServerError",
    "Stream",
    "StreamError",
    "StreamFullError",
    "StreamHandle",
    "StreamReport",
    "TimedOutError",
    "UnexpectedResponseError",
    "UsageError",
    "__document__",
    "__version__",
    "current_invocation",
]

# All other names are in _core.errors.
_HOMES = {
    "_realtime.async_client": ("AsyncRealtimeClient",),
    "_core.attempts": ("Attempt", "StreamReport"),
    "_core.authorization": ("Authorization",),
    "_realtime.client": ("RealtimeClient",),
    "_document": ("DOCUMENT",),
    "_core.invocation": ("Invocation", "current_invocation"),
    "_quota.limiter": ("Quota",),
    "_realtime.results": ("PublishResult", "RealtimeToken", "ResponseInfo"),
    "_core.policy": ("RetryPolicy",),
    "_streams.stream": ("PrivateStream", "Stream"),
    "_streams.async_stream": ("AsyncPrivateStream", "AsyncStream"),
    "_core.stop": ("StreamHandle",),
}

# Type checkers would take any name for one of this package.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        origin = "DOCUMENT" if name == "__document__" else name
        home = next((module for module, names in _HOMES.items() if origin in names), "_core.errors")
        try:
            value: object = getattr(import_module(f".{home}", __name__), origin)
        except AttributeError as error:
            # `from forge_realtime import ...` would report only that there is no such name.
            raise ImportError(f"{name} cannot be loaded: {error}", name=__name__) from error
        # From here on it is found without this function.
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
