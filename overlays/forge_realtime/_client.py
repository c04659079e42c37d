"""The two clients: one with blocking I/O, one with asyncio. Names and meaning are the same in both."""

from __future__ import annotations

import asyncio
import copy
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Generic, Literal, Self, TypeVar, cast

import httpx

from ._api.api.forge_realtime import publish as _publish
from ._api.api.forge_realtime import publish_global as _publish_global
from ._api.api.forge_realtime import sign_realtime_token as _sign_realtime_token
from ._authorization import HEADER, Authorization
from ._call import FAILURES, Failure, M, Operation, P, Steps, T, WaitStep, call_steps, operation_name
from ._errors import Attempt, NoInvocationError, UsageError
from ._invocation import Headers, Invocation, current_invocation
from ._operations import (
    Payload,
    Permission,
    encode_json,
    publish_global_request,
    publish_request,
    publish_result,
    realtime_token,
    sign_realtime_token_request,
)
from ._results import PublishResult, RealtimeToken
from ._retry import RetryPolicy
from ._shared import AsyncShared, Shared
from ._version import __version__

AnyShared = TypeVar("AnyShared", Shared, AsyncShared)

# The methods that RFC 9110 calls idempotent: carrying one out twice is as good as once.
_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})

_PUBLISH: Final[object] = _publish
_SIGN_REALTIME_TOKEN: Final[object] = _sign_realtime_token


class _Client(Generic[AnyShared]):
    """What both clients have in common: the settings, the siblings, and how a call begins."""

    _shared: AnyShared

    def __init__(self, base_url: str | None, retry: RetryPolicy | None) -> None:
        self._base_url = _checked_base_url(base_url)
        self._retry = RetryPolicy() if retry is None else _checked_policy(retry)
        self._authorization: Authorization | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._base_url} {self._authorization or 'without an invocation'}>"

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
        sibling = copy.copy(self)
        sibling.__dict__.update(changes)
        return sibling

    def _call_steps(self, operation: Operation[P, T], *args: P.args, **kwargs: P.kwargs) -> Steps[T]:
        return self._steps(operation, self._request(operation, *args, **kwargs), lambda model, _: model)

    def _publish_steps(
        self,
        channel: str,
        payload: Payload,
        token: str | RealtimeToken | None,
        context_overrides: Sequence[str] | None,
    ) -> Steps[PublishResult]:
        body = publish_request(channel, payload, token, context_overrides)
        return self._steps(_publish, self._request(_publish, body=body), publish_result)

    def _publish_global_steps(
        self, channel: str, payload: Payload, token: str | RealtimeToken | None
    ) -> Steps[PublishResult]:
        body = publish_global_request(channel, payload, token)
        return self._steps(_publish_global, self._request(_publish_global, body=body), publish_result)

    def _sign_steps(
        self, channel: str, claims: Mapping[str, Any], permissions: Iterable[Permission] | None
    ) -> tuple[Steps[RealtimeToken], tuple[str, bytes]]:
        """The steps, and what makes the token the one that it is."""
        body = sign_realtime_token_request(channel, claims, permissions)
        request = self._request(_sign_realtime_token, body=body)
        key = (request.headers[HEADER], request.content)
        return self._steps(_sign_realtime_token, request, realtime_token), key

    def _steps(
        self, operation: Operation[P, M], request: httpx.Request, convert: Callable[[M, tuple[Attempt, ...]], T]
    ) -> Steps[T]:
        return call_steps(
            operation,
            request,
            convert,
            policy=self._retry,
            budget=self._shared.budget,
            duplicate_harmless=request.method in _IDEMPOTENT or operation is _SIGN_REALTIME_TOKEN,
            started=time.monotonic(),
        )

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

    def _request(self, operation: Operation[P, M], *args: P.args, **kwargs: P.kwargs) -> httpx.Request:
        if self._shared.closed:
            raise UsageError(
                "This client is closed: its close(), that of a sibling or the end of a `with` block closes all of them. "
                "Make one client for the life of the process and close it at the end."
            )
        if not (callable(getattr(operation, "_get_kwargs", None)) and hasattr(operation, "_parse_response")):
            raise UsageError(
                "call() takes a generated operation: a module such as forge_realtime._api.api.forge_realtime.publish."
            )
        name = operation_name(operation)
        acting = self._acting(name)
        if operation is _PUBLISH and acting.installation_id is not None:
            raise UsageError(
                "publish works only for an invocation that came from the UI; the platform refuses it on behalf of an "
                "installation. Use for_invocation(request.headers), or publish_global."
            )
        try:
            generated = operation._get_kwargs(*args, **kwargs)
        except (AttributeError, TypeError) as error:
            raise UsageError(
                f"{name}: these are not its arguments ({str(error).replace('_get_kwargs()', name)}). A body is an object "
                "of the generated models."
            ) from error
        url = str(self._base_url).rstrip("/") + generated.pop("url")
        headers = {
            **generated.pop("headers", {}),
            "Accept": "application/json",
            "User-Agent": f"forge-realtime/{__version__}",
            HEADER: acting.header,
        }
        if "json" in generated:
            generated["content"] = encode_json(generated.pop("json"), f"the body of {name}")
        request = httpx.Request(url=url, headers=headers, **generated)
        request.read()
        return request


class RealtimeClient(_Client[Shared]):
    """A client with blocking I/O.

    Make one for the life of the process, and from it a sibling for each invocation or installation. It is thread-safe.

    Args:
        base_url: The address of the egress sidecar; by default the environment variable `FORGE_EGRESS_PROXY_URL`, which
            the platform sets in the container.
        retry: When a call is tried again; by default `RetryPolicy()`.
        transport: Any httpx transport, in place of the client's own connections.
        cache_tokens: Whether `sign_realtime_token` keeps what it signed for the same invocation or installation, channel,
            claims and permissions, until a tenth of its life is left.

    Raises:
        UsageError: The address is missing or is not an http(s) URL, or an argument is of another type.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        retry: RetryPolicy | None = None,
        transport: httpx.BaseTransport | None = None,
        cache_tokens: bool = False,
    ) -> None:
        super().__init__(base_url, retry)
        if transport is not None and not isinstance(transport, httpx.BaseTransport):
            raise UsageError("transport takes an httpx.BaseTransport, such as httpx.HTTPTransport().")
        self._shared = Shared(self._base_url, transport, cache_tokens)

    def publish(
        self,
        channel: str,
        payload: Payload,
        *,
        token: str | RealtimeToken | None = None,
        context_overrides: Sequence[str] | None = None,
    ) -> PublishResult:
        """Publishes an event to the subscribers of a channel in the context of the invocation.

        Args:
            channel: The channel's name; case-sensitive.
            payload: A `str` travels as it is; anything else is encoded as JSON.
            token: A token signed with the claims that the subscribers' tokens have too.
            context_overrides: Names of the parts of the context (such as `"issue"`, `"project"`) that replace the default
                scope; they must be exactly those of the subscribers. `[]` stands for no context at all.

        Returns:
            The event's id and time, both None when nobody was subscribed.

        Raises:
            UsageError: Something was refused before it was sent, for example a payload that cannot be JSON.
            ForgeRealtimeError: The call failed; `delivery` says whether the event may have arrived.
        """
        return self._run(self._publish_steps(channel, payload, token, context_overrides))

    def publish_global(
        self, channel: str, payload: Payload, *, token: str | RealtimeToken | None = None
    ) -> PublishResult:
        """Publishes an event to the global subscribers of a channel, in the whole installation.

        Args:
            channel: The channel's name; case-sensitive.
            payload: A `str` travels as it is; anything else is encoded as JSON.
            token: A token signed with the claims that the subscribers' tokens have too.

        Returns:
            The event's id and time, both None when nobody was subscribed.

        Raises:
            UsageError: Something was refused before it was sent, for example a payload that cannot be JSON.
            ForgeRealtimeError: The call failed; `delivery` says whether the event may have arrived.
        """
        return self._run(self._publish_global_steps(channel, payload, token))

    def sign_realtime_token(
        self, channel: str, claims: Mapping[str, Any], permissions: Iterable[Permission] | None = None
    ) -> RealtimeToken:
        """Signs a token that ties publishers and subscribers of a channel together by their claims.

        Args:
            channel: The channel's name; case-sensitive.
            claims: What must match exactly between publisher and subscriber.
            permissions: `"subscribe"`, `"publish"` or both; both when left out.

        Raises:
            UsageError: Something was refused before it was sent, for example claims that cannot be JSON.
            ForgeRealtimeError: The call failed. Signing is tried again in every case in which it may help.
        """
        steps, key = self._sign_steps(channel, claims, permissions)
        if self._shared.tokens is None:
            return self._run(steps)
        return self._shared.tokens.get(key, lambda: self._run(steps), self._retry.deadline)

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
        return self._run(self._call_steps(operation, *args, **kwargs))

    def close(self) -> None:
        """Closes the client and all its siblings. Calls in flight, in other threads, go on to their end."""
        self._shared.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, steps: Steps[T]) -> T:
        outcome: httpx.Response | Failure | None = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                return cast(T, end.value)
            if isinstance(step, WaitStep):
                time.sleep(step.seconds)
                outcome = None
            else:
                try:
                    outcome = self._shared.send(step.request, step.timeout)
                except FAILURES as error:
                    outcome = error


class AsyncRealtimeClient(_Client[AsyncShared]):
    """A client with asyncio. Names and meaning are those of `RealtimeClient`; it is safe to use from many tasks.

    Args:
        base_url: The address of the egress sidecar; by default the environment variable `FORGE_EGRESS_PROXY_URL`, which
            the platform sets in the container.
        retry: When a call is tried again; by default `RetryPolicy()`.
        transport: Any asynchronous httpx transport, in place of the client's own connections.
        cache_tokens: Whether `sign_realtime_token` keeps what it signed, as `RealtimeClient` describes it.

    Raises:
        UsageError: The address is missing or is not an http(s) URL, or an argument is of another type.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        retry: RetryPolicy | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        cache_tokens: bool = False,
    ) -> None:
        super().__init__(base_url, retry)
        if transport is not None and not isinstance(transport, httpx.AsyncBaseTransport):
            raise UsageError("transport takes an httpx.AsyncBaseTransport, such as httpx.AsyncHTTPTransport().")
        self._shared = AsyncShared(self._base_url, transport, cache_tokens)

    async def publish(
        self,
        channel: str,
        payload: Payload,
        *,
        token: str | RealtimeToken | None = None,
        context_overrides: Sequence[str] | None = None,
    ) -> PublishResult:
        """As `RealtimeClient.publish`."""
        return await self._run(self._publish_steps(channel, payload, token, context_overrides))

    async def publish_global(
        self, channel: str, payload: Payload, *, token: str | RealtimeToken | None = None
    ) -> PublishResult:
        """As `RealtimeClient.publish_global`."""
        return await self._run(self._publish_global_steps(channel, payload, token))

    async def sign_realtime_token(
        self, channel: str, claims: Mapping[str, Any], permissions: Iterable[Permission] | None = None
    ) -> RealtimeToken:
        """As `RealtimeClient.sign_realtime_token`."""
        steps, key = self._sign_steps(channel, claims, permissions)
        if self._shared.tokens is None:
            return await self._run(steps)
        return await self._shared.tokens.aget(key, lambda: self._run(steps), self._retry.deadline)

    async def call(self, operation: Operation[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """As `RealtimeClient.call`."""
        return await self._run(self._call_steps(operation, *args, **kwargs))

    async def aclose(self) -> None:
        """Closes the client and all its siblings. Calls in flight, in other tasks, go on to their end."""
        await self._shared.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _run(self, steps: Steps[T]) -> T:
        outcome: httpx.Response | Failure | None = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                return cast(T, end.value)
            if isinstance(step, WaitStep):
                await asyncio.sleep(step.seconds)
                outcome = None
            else:
                try:
                    outcome = await self._shared.send(step.request, step.timeout)
                except FAILURES as error:
                    outcome = error


def _checked_base_url(base_url: str | None) -> httpx.URL:
    source = "base_url" if base_url is not None else "FORGE_EGRESS_PROXY_URL"
    text = os.environ.get("FORGE_EGRESS_PROXY_URL", "") if base_url is None else base_url
    if not text:
        raise UsageError(
            f"{source} is not set. The platform sets it in the container; elsewhere start `forge-realtime emulate` and "
            "export the address that it prints, or pass base_url."
        )
    try:
        url = httpx.URL(text)
        # As connecting does.
        url.host.encode("idna")
    except (httpx.InvalidURL, TypeError, UnicodeError):
        url = httpx.URL()
    if url.scheme not in ("http", "https") or not url.host or url.userinfo or url.query or url.fragment:
        raise UsageError(
            f"{source} must be an http:// or https:// address without user, query or fragment, such as "
            "http://localhost:7072."
        )
    return url


def _checked_policy(retry: RetryPolicy) -> RetryPolicy:
    if not isinstance(retry, RetryPolicy):
        raise UsageError("retry takes a RetryPolicy, for example RetryPolicy(deadline=10.0).")
    return retry
