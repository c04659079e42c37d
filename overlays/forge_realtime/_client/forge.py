"""Clients for any operation behind the egress sidecar: header, retries, errors and siblings.

The Realtime clients add the named operations. Clients made for other groups of the document are exactly these.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import lru_cache, partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, Literal, Self, TypeVar, cast

from .._core import clock
from .._core.call import Flow, Instrument, PreparedRequest, RateLimiter, Sleep, call_flow, operation_name
from .._core.encoding import encode_json
from .._core.errors import ForgeRealtimeError, UsageError
from .._core.fork import reset_if_forked
from .._core.group import HEADER, USUAL, Traits, adapt_request, traits_of
from .._core.hidden import Hidden
from .._core.http import httpx
from .._core.responses import M, Operation, P, Response, T
from .._transports.http_client import Httpx2Client, Httpx2Transport, blocking_transport
from .._transports.lazy_imports import import_lazy_modules
from .._version import __version__
from .address import VARIABLE, checked_address

if TYPE_CHECKING:
    from .._core.attempts import Attempt
    from .._core.authorization import Authorization
    from .._core.invocation import Headers, Invocation
    from .._core.policy import RetryPolicy
    from .._transports.pool import BaseConnectionPool, ConnectionPool
    from .settings import ClientSettings

AnyPool = TypeVar("AnyPool", bound="BaseConnectionPool")

# The methods that RFC 9110 calls idempotent: a repetition has no further effect.
_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
_USER_AGENT: Final = f"forge-realtime/{__version__}".encode("ascii")
UNCHANGED: Final[Any] = object()
"""Default of the arguments of `with_options`."""


class BaseClient(Generic[AnyPool]):
    """Settings, siblings and the start of a call, for the blocking and the asyncio client."""

    _INVOCATION_ONLY: ClassVar[frozenset[str]] = frozenset()
    """Operations that the platform refuses on behalf of an installation, by the name of their module."""
    _HARMLESS_TWICE: ClassVar[frozenset[str]] = frozenset()
    """Operations that may be repeated, whatever their method, by the name of their module."""

    _settings: ClientSettings
    _pool: AnyPool
    _authorization: Authorization | None = None
    """Whom calls are made for; None for the current invocation."""

    def __repr__(self) -> str:
        address = self._settings.base_url or f"${VARIABLE}"
        return f"<{type(self).__name__} {address} {self._authorization or 'without an invocation'}>"

    @property
    def retry(self) -> RetryPolicy:
        """When calls are retried."""
        return self._settings.retry

    def for_invocation(
        self,
        invocation: Invocation | Headers,
        *,
        as_: Literal["app", "user"] | None = "app",
        account_id: str | None = None,
    ) -> Self:
        """Return a sibling that acts for an invocation of the app. It shares the connections and is cheap to make.

        Args:
            invocation: The headers of the inbound request, or an Invocation read from them.
            as_: Act as the app or as a user; None leaves it to the platform.
            account_id: Atlassian account to act as; only with `as_="user"`.

        Raises:
            NoInvocationError: The headers carry no `x-forge-invocation-id`.
            UsageError: The grammar of the header does not allow the combination or a value.
        """
        from .._core.authorization import Authorization
        from .._core.invocation import Invocation

        found = invocation if isinstance(invocation, Invocation) else Invocation.from_headers(invocation)
        return self._acting_for(Authorization(invocation_id=found.id, as_=as_, account_id=account_id))

    def for_installation(
        self, installation_id: str, *, as_: Literal["app", "user"] | None = "app", account_id: str | None = None
    ) -> Self:
        """Return a sibling that acts for an installation where there is no invocation: timers, queues, batch jobs.

        The platform refuses some operations on behalf of an installation, such as Realtime's `publish`.

        Args:
            installation_id: The installation, as a UUID or an ARI. The header carries the UUID.
            as_: Act as the app or as a user; None leaves it to the platform.
            account_id: Atlassian account to act as; only with `as_="user"`.

        Raises:
            UsageError: The grammar of the header does not allow the combination or a value.
        """
        if not isinstance(installation_id, str) or not installation_id.strip():
            raise UsageError(
                "for_installation takes the id of an installation as a non-empty str, a UUID or an ARI: the `id` in "
                "the response of GET /v1/installations, or `app.installationId` of GET /invocation/context."
            )
        from .._core.authorization import Authorization

        return self._acting_for(Authorization(installation_id=installation_id, as_=as_, account_id=account_id))

    def with_options(self, *, retry: RetryPolicy = UNCHANGED, show_response: bool = UNCHANGED) -> Self:
        """Return a sibling with other options. It shares the connections and is cheap to make.

        Args:
            retry: When calls of the sibling are retried; unchanged by default.
            show_response: Whether the message of an error quotes the platform's response; unchanged by default.

        Raises:
            UsageError: An argument has the wrong type.
        """
        return self._with(retry=retry, show_response=show_response)

    def _with(self, **options: Any) -> Self:
        from attrs import evolve

        changes = {name: value for name, value in options.items() if value is not UNCHANGED}
        return self._sibling(_settings=evolve(self._settings, **changes))

    def _acting_for(self, authorization: Authorization) -> Self:
        return self._sibling(_authorization=authorization)

    def _sibling(self, **changes: object) -> Self:
        # In less than half the time of copy.copy: apps make one for each request.
        sibling = object.__new__(type(self))
        vars(sibling).update(vars(self), **changes)
        return sibling

    def _acting(self, name: str) -> Authorization:
        """Return whom the operation with this name is called for."""
        if self._authorization is not None:
            return self._authorization
        from .._core.authorization import Authorization
        from .._core.invocation import require_invocation

        return Authorization(invocation_id=require_invocation(name).id)

    def _call_flow(self, operation: Operation[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Flow[T]:
        try:
            prepared = self._prepare(operation, *args, **kwargs)
        finally:
            del args, kwargs
        return self._flow(operation, prepared, lambda model, *_: model)

    def _flow(
        self,
        operation: Operation[P, M],
        prepared: PreparedRequest,
        convert: Callable[[M, tuple[Attempt, ...], Response], T],
        *,
        retry: RetryPolicy | None = None,
        limiter: RateLimiter | None = None,
    ) -> Flow[T]:
        policy, instrument = retry or self._settings.retry, self._settings.instrument
        limiter = limiter or self._limiter(operation)
        make = partial(
            call_flow,
            operation,
            prepared,
            convert,
            budget=self._pool.budget,
            duplicate_harmless=prepared.method in _IDEMPOTENT or _module_of(operation) in self._HARMLESS_TWICE,
            started=clock.monotonic(),
        )
        if instrument is None:
            return make(policy=policy, limiter=limiter)
        return instrument.call_flow(make, prepared, policy=policy, limiter=limiter)

    def _limiter(self, operation: object) -> RateLimiter | None:  # noqa: ARG002 (for overriding)
        """Return what decides when attempts may start; None for no limit."""
        return None

    def _address(self) -> str:
        return self._settings.base_url or checked_address(VARIABLE, os.environ.get(VARIABLE, ""))

    def _prepare(self, operation: Operation[P, M], /, *args: P.args, **kwargs: P.kwargs) -> PreparedRequest:
        arguments: Hidden[tuple[Any, Any]] = Hidden((args, kwargs))
        del args, kwargs
        reset_if_forked()
        if self._pool.closed:
            raise UsageError(
                "This client is closed: its close(), a sibling's close() or the end of a `with` block closes all of "
                "them. Make one client for the life of the process and close it at the end."
            )
        if not (callable(getattr(operation, "_get_kwargs", None)) and hasattr(operation, "_parse_response")):
            raise UsageError("call() takes a generated operation: a module in a package of forge_realtime._api.api.")
        name = operation_name(operation)
        traits = traits_of(operation)
        acting = self._acting(name) if traits.header else None
        if acting is not None and acting.installation_id is not None and _module_of(operation) in self._INVOCATION_ONLY:
            raise UsageError(
                f"{name} works only for an invocation that came from the UI; the platform refuses it on behalf of an "
                "installation. Use for_invocation(request.headers), or publish_global."
            )
        address = self._address()
        try:
            prepared = _request(operation, arguments, name=name, address=address, acting=acting, traits=traits)
            prepared.show_response = self._settings.show_response
            return prepared  # noqa: TRY300 (the errors of both lines are the arguments')
        except UsageError:
            raise
        except Exception as error:  # noqa: BLE001 (the values of the arguments may raise anything)
            known = isinstance(error, AttributeError | TypeError)
            reason = str(error).rpartition("_get_kwargs() ")[2] if known else type(error).__name__
        # Raised outside of the handler, because the variables of the error's frames hold the arguments.
        raise UsageError(
            f"{name}: these are not its arguments ({reason}). A body is an object of the generated models."
        )


class ForgeClient(BaseClient["ConnectionPool"]):
    """A client with blocking I/O.

    Make one for the life of the process, and a sibling of it for each invocation or installation. Thread-safe.

    Args:
        base_url: Address of the egress sidecar. By default, the environment variable `FORGE_EGRESS_PROXY_URL` at each
            call, which the platform sets in the container.
        retry: When calls are retried; by default `RetryPolicy()`.
        transport: Any transport of httpx or httpx2 to use instead of the client's own connections.
        http_client: A client of httpx or httpx2 to send with, including its event hooks, headers, authentication and
            proxies. It stays open when this client is closed.
        instrument: Traces and measures calls, such as `forge_realtime.otel.Instrumentation()`; nothing by default.
        show_response: Quote the platform's response in the message of an error, which logs and traces show too. It may
            repeat what was sent.

    Raises:
        UsageError: The address is no http(s) URL, or an argument has the wrong type.
    """

    _pool: ConnectionPool

    def __init__(
        self,
        base_url: str | None = None,
        *,
        retry: RetryPolicy | None = None,
        transport: httpx.BaseTransport | Httpx2Transport | None = None,
        http_client: httpx.Client | Httpx2Client | None = None,
        instrument: Instrument | None = None,
        show_response: bool = False,
    ) -> None:
        from .._core.policy import RetryPolicy
        from .settings import ClientSettings

        retry = RetryPolicy() if retry is None else retry
        settings = ClientSettings(base_url=base_url, retry=retry, instrument=instrument, show_response=show_response)
        self._set_up(settings, transport, http_client)

    def _set_up(self, settings: ClientSettings, transport: object, http_client: object) -> None:
        # It loads httpcore, as httpx does when its first client is made.
        from .._transports.pool import ConnectionPool

        self._settings = settings
        self._pool = ConnectionPool(blocking_transport(transport, http_client))
        import_lazy_modules()

    def call(self, operation: Operation[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call any generated operation, with the header, retries and errors of the named ones.

        Args:
            operation: A generated module, in `forge_realtime._api.api`.
            *args: Arguments of the operation.
            **kwargs: Arguments of the operation.

        Returns:
            The parsed response.

        Raises:
            UsageError: It is no such module, or the call was refused before it was sent.
            ForgeRealtimeError: The call failed; `delivery` says whether it may have been carried out.
        """
        try:
            flow = self._call_flow(operation, *args, **kwargs)
        finally:
            # Crash reporters show the variables of every frame.
            del args, kwargs
        return self._run(flow)

    def close(self) -> None:
        """Close the client and all its siblings. Calls in flight in other threads run to their end."""
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, flow: Flow[T]) -> T:
        outcome: Response | Exception | None = None
        while True:
            try:
                step = flow.send(outcome)
            except StopIteration as end:
                return cast("T", end.value)
            finally:
                # Crash reporters show variables, and an error may quote what was sent.
                outcome = None
            try:
                if isinstance(step, Sleep):
                    _sleep(step)
                else:
                    try:
                        outcome = self._pool.send(step.request, step.timeout)
                    except (ForgeRealtimeError, MemoryError):
                        raise
                    except Exception as error:  # noqa: BLE001 (whatever the app's transport, hook or tracer raises)
                        outcome = error
            except BaseException:
                # Now, and not when the traceback is gone: other calls wait behind this one for the quota.
                flow.close()
                raise


def _request(
    operation: Operation[..., object],
    arguments: Hidden[tuple[Any, Any]],
    *,
    name: str,
    address: str,
    acting: Authorization | None,
    traits: Traits,
) -> PreparedRequest:
    generated = operation._get_kwargs(*arguments.value[0], **arguments.value[1])  # noqa: SLF001 (generated code has no other name for it)
    if traits is not USUAL:
        hidden = Hidden(generated)
        del generated
        adapt_request(name, traits, hidden)
        generated = hidden.value
    own: dict[str, str] = generated.pop("headers", {})
    url, common = _url_and_headers(address + generated.pop("url"), traits.accept, *own.items())
    method = generated.pop("method").upper()
    if "json" in generated:
        generated["content"] = encode_json(generated.pop("json"), f"the body of {name}")
    headers = httpx.Headers(common)
    if acting is not None:
        headers[HEADER] = acting.header
    if generated.keys() == {"content"}:
        # The same request as httpx makes, in a quarter of the time.
        content = generated["content"]
        headers["Content-Length"] = str(len(content))
        return PreparedRequest(name, method, url, headers, content, base_url=address)
    request = httpx.Request(method, url, headers=headers, **generated)
    return PreparedRequest(name, method, request.url, request.headers, request.read(), base_url=address)


def _module_of(operation: object) -> str:
    return str(getattr(operation, "__name__", ""))


def _sleep(step: Sleep) -> None:
    if step.waker is None:
        time.sleep(step.seconds)
        return
    # Not an Event: a signal handler may wake the thread that it interrupts.
    lock = threading.Lock()
    lock.acquire()
    try:
        if step.waker.begin(lock.release):
            lock.acquire(timeout=step.seconds)
    finally:
        step.waker.end()


@lru_cache(maxsize=64)
def _url_and_headers(text: str, accept: str, *own: tuple[str, str]) -> tuple[httpx.URL, httpx.Headers]:
    """Return the URL of an operation, and the headers that all requests to it have in common."""
    url = httpx.URL(text)
    common = [
        (b"Host", url.netloc),
        (b"Accept", accept.encode("ascii")),
        (b"Accept-Encoding", b"identity"),
        (b"User-Agent", _USER_AGENT),
    ]
    return url, httpx.Headers([*common, *((name.encode("ascii"), value.encode("utf-8")) for name, value in own)])
