"""Clients for the operations behind the egress sidecar: header, retries, errors and siblings, whatever the operation.

The clients for Realtime add the named operations. Those that are made for other groups of the document are these.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import lru_cache
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Final, Generic, Literal, Self, TypeVar, cast

import httpx

from .._core.authorization import HEADER, Authorization
from .._core.call import (
    FAILURES,
    Failure,
    Flow,
    M,
    Operation,
    P,
    PreparedRequest,
    RateLimiter,
    Response,
    Sleep,
    T,
    call_flow,
    operation_name,
)
from .._core.encoding import encode_json
from .._core.errors import Attempt, NoInvocationError, UsageError
from .._core.invocation import Headers, Invocation, current_invocation
from .._core.retry import RetryPolicy
from .._transports.http_client import ClientTransport
from .._version import __version__

if TYPE_CHECKING:
    from .._transports.pool import BaseConnectionPool, ConnectionPool

AnyPool = TypeVar("AnyPool", bound="BaseConnectionPool")

# The methods that RFC 9110 calls idempotent: carrying one out twice is as good as once.
_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
_VARIABLE: Final = "FORGE_EGRESS_PROXY_URL"
_USER_AGENT: Final = f"forge-realtime/{__version__}".encode("ascii")
_HEADER: Final = HEADER.encode("ascii")


class BaseClient(Generic[AnyPool]):
    """What both clients have in common: the settings, the siblings, and how a call begins."""

    _INVOCATION_ONLY: ClassVar[frozenset[object]] = frozenset()
    """Operations that the platform refuses on behalf of an installation."""
    _HARMLESS_TWICE: ClassVar[frozenset[object]] = frozenset()
    """Operations that may be carried out twice, whatever their method."""

    _pool: AnyPool

    def __init__(self, base_url: str | None, retry: RetryPolicy | None) -> None:
        # None: that of the environment at each call, so that a module which makes its client can be imported anywhere.
        self._base_url = None if base_url is None else _checked_address("base_url", base_url)
        self._retry = RetryPolicy() if retry is None else _checked_policy(retry)
        self._authorization: Authorization | None = None

    def __repr__(self) -> str:
        address = self._base_url or f"${_VARIABLE}"
        return f"<{type(self).__name__} {address} {self._authorization or 'without an invocation'}>"

    @property
    def retry(self) -> RetryPolicy:
        """When a call is tried again."""
        return self._retry

    def for_invocation(
        self,
        invocation: Invocation | Headers,
        *,
        as_: Literal["app", "user"] | None = "app",
        account_id: str | None = None,
    ) -> Self:
        """Returns a sibling that acts for an invocation of the app. It shares the connections; making one is cheap.

        Args:
            invocation: The headers of the inbound request, or the Invocation read from them.
            as_: Whether to act as the app or as a user; None leaves it to the platform.
            account_id: The Atlassian account to act as; only with `as_="user"`.

        Raises:
            NoInvocationError: The headers carry no `x-forge-invocation-id`.
            UsageError: The combination or a value is not in the documented grammar of the header.
        """
        found = invocation if isinstance(invocation, Invocation) else Invocation.from_headers(invocation)
        return self._sibling(_authorization=Authorization(invocation_id=found.id, as_=as_, account_id=account_id))

    def for_installation(
        self, installation_id: str, *, as_: Literal["app", "user"] | None = "app", account_id: str | None = None
    ) -> Self:
        """Returns a sibling that acts for an installation, where no invocation is at hand: timers, queues, batch jobs.

        It publishes to global channels only: the platform refuses `publish` on behalf of an installation.

        Args:
            installation_id: The id of the installation.
            as_: Whether to act as the app or as a user; None leaves it to the platform.
            account_id: The Atlassian account to act as; only with `as_="user"`.

        Raises:
            UsageError: The combination or a value is not in the documented grammar of the header.
        """
        authorization = Authorization(installation_id=installation_id, as_=as_, account_id=account_id)
        return self._sibling(_authorization=authorization)

    def with_options(self, *, retry: RetryPolicy) -> Self:
        """Returns a sibling with another policy for retries. It shares the connections; making one is cheap."""
        return self._sibling(_retry=_checked_policy(retry))

    def _sibling(self, **changes: object) -> Self:
        sibling = object.__new__(type(self))
        sibling.__dict__.update(self.__dict__, **changes)
        return sibling

    def _call_flow(self, operation: Operation[P, T], *args: P.args, **kwargs: P.kwargs) -> Flow[T]:
        return self._flow(operation, self._prepare(operation, *args, **kwargs), lambda model, _: model)

    def _flow(
        self,
        operation: Operation[P, M],
        prepared: PreparedRequest,
        convert: Callable[[M, tuple[Attempt, ...]], T],
    ) -> Flow[T]:
        return call_flow(
            operation,
            prepared,
            convert,
            policy=self._retry,
            budget=self._pool.budget,
            duplicate_harmless=prepared.method in _IDEMPOTENT or operation in self._HARMLESS_TWICE,
            started=time.monotonic(),
            limiter=self._limiter(operation),
        )

    def _limiter(self, operation: object) -> RateLimiter | None:
        """What lets the attempts of a call begin; None: nothing holds them."""
        return None

    def _address(self) -> str:
        return self._base_url or _checked_address(_VARIABLE, os.environ.get(_VARIABLE, ""))

    def _acting(self, name: str) -> Authorization:
        if self._authorization is not None:
            return self._authorization
        if invocation := current_invocation():
            return Authorization(invocation_id=invocation.id)
        raise NoInvocationError(
            f"{name}: no invocation is current here. In a request, add forge_realtime.asgi.InvocationMiddleware (or wsgi) "
            "to the app, or call it on client.for_invocation(request.headers). In a thread, executor or queue worker, enter "
            "`with invocation.active()` with the request's current_invocation(). Where there is none, use "
            "client.for_installation(installation_id), which publishes to global channels."
        )

    def _prepare(self, operation: Operation[P, M], *args: P.args, **kwargs: P.kwargs) -> PreparedRequest:
        if self._pool.closed:
            raise UsageError(
                "This client is closed: its close(), that of a sibling or the end of a `with` block closes all of them. "
                "Make one client for the life of the process and close it at the end."
            )
        if not (callable(getattr(operation, "_get_kwargs", None)) and hasattr(operation, "_parse_response")):
            raise UsageError(
                "call() takes a generated operation: a module of forge_realtime._api.api, such as the one of publish."
            )
        name = operation_name(operation)
        acting = self._acting(name)
        if acting.installation_id is not None and operation in self._INVOCATION_ONLY:
            raise UsageError(
                f"{name} works only for an invocation that came from the UI; the platform refuses it on behalf of an "
                "installation. Use for_invocation(request.headers), or publish_global."
            )
        try:
            generated = operation._get_kwargs(*args, **kwargs)
        except (AttributeError, TypeError) as error:
            raise UsageError(
                f"{name}: these are not its arguments ({str(error).replace('_get_kwargs()', name)}). A body is an object "
                "of the generated models."
            ) from error
        url: httpx.URL = _url(self._address() + generated.pop("url"))
        own: dict[str, str] = generated.pop("headers", {})
        method = generated.pop("method").upper()
        headers = [
            *_headers(url.netloc, *own.items()),
            (_HEADER, acting.header.encode("ascii")),
        ]
        if "json" in generated:
            generated["content"] = encode_json(generated.pop("json"), f"the body of {name}")
        if generated.keys() == {"content"}:
            # As httpx makes a request of it, in a quarter of the time.
            content = generated["content"]
            headers.append((b"Content-Length", b"%d" % len(content)))
            return PreparedRequest(name, method, url, headers, content)
        request = httpx.Request(method, url, headers=headers, **generated)
        return PreparedRequest(name, method, request.url, request.headers.raw, request.read())


class ForgeClient(BaseClient["ConnectionPool"]):
    """A client with blocking I/O.

    Make one for the life of the process, and from it a sibling for each invocation or installation. It is thread-safe.

    Args:
        base_url: The address of the egress sidecar; by default what the environment variable `FORGE_EGRESS_PROXY_URL`,
            which the platform sets in the container, says at each call.
        retry: When a call is tried again; by default `RetryPolicy()`.
        transport: Any httpx transport, in place of the client's own connections.
        http_client: An httpx client to send with: its event hooks, headers, authentication and proxies take part. It
            stays its owner's to close.

    Raises:
        UsageError: The address is not an http(s) URL, or an argument is of another type.
    """

    _pool: ConnectionPool

    def __init__(
        self,
        base_url: str | None = None,
        *,
        retry: RetryPolicy | None = None,
        transport: httpx.BaseTransport | None = None,
        http_client: httpx.Client | None = None,
    ) -> None:
        # It loads httpcore, as httpx does when its first client is made.
        from .._transports.pool import ConnectionPool

        super().__init__(base_url, retry)
        if transport is not None and not isinstance(transport, httpx.BaseTransport):
            raise UsageError("transport takes an httpx.BaseTransport, such as httpx.HTTPTransport().")
        if http_client is not None:
            if transport is not None or not isinstance(http_client, httpx.Client):
                raise UsageError(
                    "http_client takes an httpx.Client, which brings its own transport: give no other one."
                )
            transport = ClientTransport(http_client)
        self._pool = ConnectionPool(transport)

    def call(self, operation: Operation[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls any generated operation, with header, retries and errors as the named ones have them.

        Args:
            operation: A generated module, such as `forge_realtime._api.api.forge_realtime.publish`.
            *args: The operation's own arguments.
            **kwargs: The operation's own arguments.

        Returns:
            The parsed answer.

        Raises:
            UsageError: It is no such module, or was refused before it was sent.
            ForgeRealtimeError: The call failed; `delivery` says whether it may have been carried out.
        """
        return self._run(self._call_flow(operation, *args, **kwargs))

    def close(self) -> None:
        """Closes the client and all its siblings. Calls in flight, in other threads, go on to their end."""
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, flow: Flow[T]) -> T:
        outcome: Response | Failure | None = None
        while True:
            try:
                step = flow.send(outcome)
            except StopIteration as end:
                return cast(T, end.value)
            try:
                if isinstance(step, Sleep):
                    time.sleep(step.seconds)
                    outcome = None
                else:
                    try:
                        outcome = self._pool.send(step.request, step.timeout)
                    except FAILURES as error:
                        outcome = error
            except BaseException:
                # Now, and not when the traceback is gone: others wait behind this call for the quota.
                flow.close()
                raise


@lru_cache(maxsize=64)
def _url(text: str) -> httpx.URL:
    return httpx.URL(text)


@lru_cache(maxsize=64)
def _headers(host: bytes, *own: tuple[str, str]) -> list[tuple[bytes, bytes]]:
    """What all requests to a host have in common, and what the operation adds."""
    common = [(b"Host", host), (b"Accept", b"application/json"), (b"User-Agent", _USER_AGENT)]
    return [*common, *((name.encode("ascii"), value.encode("utf-8")) for name, value in own)]


@lru_cache(maxsize=16)
def _checked_address(source: str, text: str) -> str:
    """The address of the sidecar, without a slash at its end."""
    if not text:
        raise UsageError(
            f"{source} is not set. The platform sets {_VARIABLE} in the container; elsewhere start `forge-realtime emulate` and "
            "export the address that it prints, or pass base_url."
        )
    try:
        url = httpx.URL(text)
        labels = url.host.removesuffix(".").split(".")
        if not url.host.isascii() or any(not 0 < len(label) < 64 for label in labels):
            # As connecting does. It takes longer to load than to make a client.
            url.host.encode("idna")
    except (httpx.InvalidURL, TypeError, UnicodeError):
        url = httpx.URL()
    if url.scheme not in ("http", "https") or not url.host or url.userinfo or url.query or url.fragment:
        raise UsageError(
            f"{source} must be an http:// or https:// address without user, query or fragment, such as "
            "http://localhost:7072."
        )
    return str(url).rstrip("/")


def _checked_policy(retry: RetryPolicy) -> RetryPolicy:
    if not isinstance(retry, RetryPolicy):
        raise UsageError("retry takes a RetryPolicy, for example RetryPolicy(deadline=10.0).")
    return retry
