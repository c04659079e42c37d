"""The two clients: one with blocking I/O, one with asyncio. Names and meaning are the same in both."""

from __future__ import annotations

import asyncio
import copy
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Literal, Self, cast

import httpx

from ._api.api.forge_realtime import publish as _publish
from ._api.api.forge_realtime import publish_global as _publish_global
from ._api.api.forge_realtime import sign_realtime_token as _sign_realtime_token
from ._authorization import HEADER, Authorization
from ._call import M, Operation, P, SendStep, Steps, T, call_steps, operation_name
from ._errors import Attempt, NoInvocationError, UsageError
from ._invocation import Headers, Invocation
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
from ._retry import RetryBudget, RetryPolicy
from ._version import __version__

# The methods that RFC 9110 calls idempotent: carrying one out twice is as good as once.
_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})

_PUBLISH: Final[object] = _publish
_SIGN_REALTIME_TOKEN: Final[object] = _sign_realtime_token


class _Client:
    """What both clients share: the settings, the siblings, and how a call begins."""

    def __init__(self, base_url: str | None, retry: RetryPolicy | None) -> None:
        self._base_url = _checked_base_url(base_url)
        self._retry = RetryPolicy() if retry is None else _checked_policy(retry)
        self._authorization: Authorization | None = None
        self._budget = RetryBudget()
        # A list, so that the siblings share it.
        self._closed = [False]

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
        return self._steps(operation, lambda model, _: model, *args, **kwargs)

    def _publish_steps(
        self,
        channel: str,
        payload: Payload,
        token: str | RealtimeToken | None,
        context_overrides: Sequence[str] | None,
    ) -> Steps[PublishResult]:
        request = publish_request(channel, payload, token, context_overrides)
        return self._steps(_publish, publish_result, body=request)

    def _publish_global_steps(
        self, channel: str, payload: Payload, token: str | RealtimeToken | None
    ) -> Steps[PublishResult]:
        return self._steps(_publish_global, publish_result, body=publish_global_request(channel, payload, token))

    def _sign_steps(
        self, channel: str, claims: Mapping[str, Any], permissions: Iterable[Permission] | None
    ) -> Steps[RealtimeToken]:
        request = sign_realtime_token_request(channel, claims, permissions)
        return self._steps(_sign_realtime_token, realtime_token, body=request)

    def _steps(
        self,
        operation: Operation[P, M],
        convert: Callable[[M, tuple[Attempt, ...]], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Steps[T]:
        request = self._request(operation, *args, **kwargs)
        return call_steps(
            operation,
            request,
            convert,
            policy=self._retry,
            budget=self._budget,
            duplicate_harmless=request.method in _IDEMPOTENT or operation is _SIGN_REALTIME_TOKEN,
        )

    def _request(self, operation: Operation[P, M], *args: P.args, **kwargs: P.kwargs) -> httpx.Request:
        if self._closed[0]:
            raise UsageError(
                "This client is closed. Make one client for the life of the process and close it at the end."
            )
        if not (callable(getattr(operation, "_get_kwargs", None)) and hasattr(operation, "_parse_response")):
            raise UsageError(
                "call() takes a generated operation: a module such as forge_realtime._api.api.forge_realtime.publish."
            )
        name = operation_name(operation)
        if self._authorization is None:
            raise NoInvocationError(
                f"{name}: on whose behalf? Call it on client.for_invocation(request.headers), or outside of a request on "
                "client.for_installation(installation_id)."
            )
        if operation is _PUBLISH and self._authorization.installation_id is not None:
            raise UsageError(
                "publish works only for an invocation that came from the UI; the platform refuses it on behalf of an "
                "installation. Use for_invocation(request.headers), or publish_global."
            )
        try:
            generated = operation._get_kwargs(*args, **kwargs)
        except AttributeError as error:
            raise UsageError(f"{name}: body takes an object of the generated models: {error}") from error
        url = str(self._base_url).rstrip("/") + generated.pop("url")
        headers = {
            **generated.pop("headers", {}),
            "Accept": "application/json",
            "User-Agent": f"forge-realtime/{__version__}",
            HEADER: self._authorization.header,
        }
        if "json" in generated:
            generated["content"] = encode_json(generated.pop("json"), "the request")
        request = httpx.Request(url=url, headers=headers, **generated)
        request.read()
        return request


class RealtimeClient(_Client):
    """A client with blocking I/O.

    Make one for the life of the process, and from it a sibling for each invocation or installation. It is thread-safe.

    Args:
        base_url: The address of the egress sidecar; by default the environment variable `FORGE_EGRESS_PROXY_URL`, which
            the platform sets in the container.
        retry: When a call is tried again; by default `RetryPolicy()`.
        transport: Any httpx transport, in place of the client's own connections.

    Raises:
        UsageError: The address is missing or is not an http(s) URL.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        retry: RetryPolicy | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        super().__init__(base_url, retry)
        self._transport = transport or httpx.HTTPTransport(verify=_verify(self._base_url))

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
        return self._run(self._sign_steps(channel, claims, permissions))

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
        """Closes the connections, those of all siblings too."""
        self._closed[0] = True
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, steps: Steps[T]) -> T:
        outcome: httpx.Response | httpx.RequestError | None = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                return cast(T, end.value)
            if isinstance(step, SendStep):
                outcome = self._attempt(step)
            else:
                time.sleep(step.seconds)
                outcome = None

    def _attempt(self, step: SendStep) -> httpx.Response | httpx.RequestError:
        until = time.monotonic() + step.timeout
        try:
            response = self._transport.handle_request(step.request)
            try:
                response.request = step.request
                response.stream = _BoundedStream(cast(httpx.SyncByteStream, response.stream), until)
                response.read()
            finally:
                response.close()
        except httpx.RequestError as error:
            return error
        return response


class AsyncRealtimeClient(_Client):
    """A client with asyncio. Names and meaning are those of `RealtimeClient`; it is safe to use from many tasks.

    Args:
        base_url: The address of the egress sidecar; by default the environment variable `FORGE_EGRESS_PROXY_URL`, which
            the platform sets in the container.
        retry: When a call is tried again; by default `RetryPolicy()`.
        transport: Any asynchronous httpx transport, in place of the client's own connections.

    Raises:
        UsageError: The address is missing or is not an http(s) URL.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        retry: RetryPolicy | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(base_url, retry)
        self._transport = transport or httpx.AsyncHTTPTransport(verify=_verify(self._base_url))

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
        return await self._run(self._sign_steps(channel, claims, permissions))

    async def call(self, operation: Operation[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """As `RealtimeClient.call`."""
        return await self._run(self._call_steps(operation, *args, **kwargs))

    async def aclose(self) -> None:
        """Closes the connections, those of all siblings too."""
        self._closed[0] = True
        await self._transport.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _run(self, steps: Steps[T]) -> T:
        outcome: httpx.Response | httpx.RequestError | None = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                return cast(T, end.value)
            if isinstance(step, SendStep):
                outcome = await self._attempt(step)
            else:
                await asyncio.sleep(step.seconds)
                outcome = None

    async def _attempt(self, step: SendStep) -> httpx.Response | httpx.RequestError:
        try:
            async with asyncio.timeout(step.timeout):
                response = await self._transport.handle_async_request(step.request)
                try:
                    response.request = step.request
                    await response.aread()
                finally:
                    await response.aclose()
        except TimeoutError:
            return httpx.ReadTimeout("", request=step.request)
        except httpx.RequestError as error:
            return error
        return response


class _BoundedStream(httpx.SyncByteStream):
    """An answer's body that ends in a timeout when it has not arrived in time, however steadily it trickles."""

    def __init__(self, stream: httpx.SyncByteStream, until: float) -> None:
        self._stream = stream
        self._until = until

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            if time.monotonic() > self._until:
                raise httpx.ReadTimeout("")
            yield chunk

    def close(self) -> None:
        self._stream.close()


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
    except (httpx.InvalidURL, TypeError):
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


def _verify(url: httpx.URL) -> bool:
    # Setting up the verification of certificates takes some 15 ms, and a plain-http sidecar never uses it.
    return url.scheme == "https"
