"""Python client for the Atlassian Forge Realtime API, for services in Forge Containers."""

from ._authorization import Authorization
from ._client import AsyncRealtimeClient, RealtimeClient
from ._document import DOCUMENT as __document__
from ._errors import (
    AnswerError,
    Attempt,
    Delivery,
    ForgeRealtimeError,
    InvalidTokenError,
    NoAnswerError,
    NoInvocationError,
    OverQuotaError,
    RateLimitedError,
    RejectedError,
    ServerFailedError,
    StreamError,
    StreamFullError,
    StreamReport,
    TimedOutError,
    UnexpectedAnswerError,
    UsageError,
)
from ._invocation import Invocation, current_invocation
from ._quota import Quota
from ._results import PublishResult, RealtimeToken
from ._retry import RetryPolicy
from ._stream_worker import Stream
from ._streams import AsyncStream
from ._version import __version__

__all__ = [
    "AnswerError",
    "AsyncRealtimeClient",
    "AsyncStream",
    "Attempt",
    "Authorization",
    "Delivery",
    "ForgeRealtimeError",
    "InvalidTokenError",
    "Invocation",
    "NoAnswerError",
    "NoInvocationError",
    "OverQuotaError",
    "PublishResult",
    "Quota",
    "RateLimitedError",
    "RealtimeClient",
    "RealtimeToken",
    "RejectedError",
    "RetryPolicy",
    "ServerFailedError",
    "Stream",
    "StreamError",
    "StreamFullError",
    "StreamReport",
    "TimedOutError",
    "UnexpectedAnswerError",
    "UsageError",
    "__document__",
    "__version__",
    "current_invocation",
]
