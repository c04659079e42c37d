"""The client with asyncio for the operations behind the egress sidecar."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias, cast

import httpx

from .._core.call import FAILURES, Failure, Flow, Operation, P, Response, Sleep, T
from .._core.errors import UsageError
from .._core.retry import RetryPolicy
from .._transports.async_pool import AsyncConnectionPool
from .._transports.http_client import AsyncClientTransport
from .forge import BaseClient

AsyncTransport: TypeAlias = httpx.AsyncBaseTransport | Literal["aiohttp", "httpx"]


class AsyncForgeClient(BaseClient[AsyncConnectionPool]):
    """A client with asyncio. Names and meaning are those of `ForgeClient`; it is safe to use from many tasks.

    Args:
        base_url: The address of the egress sidecar; by default what the environment variable `FORGE_EGRESS_PROXY_URL`,
            which the platform sets in the container, says at each call.
        retry: When a call is tried again; by default `RetryPolicy()`.
        transport: `"aiohttp"` or `"httpx"`: whose connections are used; by default those of aiohttp, which take a third
            less time, where it is installed (`forge-realtime[aiohttp]`). Or any asynchronous httpx transport in their place.
        http_client: An asynchronous httpx client to send with: its event hooks, headers, authentication and proxies take
            part. It stays its owner's to close.

    Raises:
        UsageError: The address is not an http(s) URL, or an argument is of another type.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        retry: RetryPolicy | None = None,
        transport: AsyncTransport | None = None,
        http_client: httpx.AsyncClient | None = None,
    ) -> None:
        super().__init__(base_url, retry)
        if not isinstance(transport, httpx.AsyncBaseTransport) and transport not in (None, "aiohttp", "httpx"):
            raise UsageError(
                "transport takes an httpx.AsyncBaseTransport, such as httpx.AsyncHTTPTransport(), or 'aiohttp' or 'httpx'."
            )
        if http_client is not None:
            if transport is not None or not isinstance(http_client, httpx.AsyncClient):
                raise UsageError(
                    "http_client takes an httpx.AsyncClient, which brings its own transport: give no other one."
                )
            transport = AsyncClientTransport(http_client)
        if isinstance(transport, httpx.AsyncBaseTransport):
            self._pool = AsyncConnectionPool(transport)
        else:
            self._pool = AsyncConnectionPool(None, aiohttp=None if transport is None else transport == "aiohttp")

    async def call(self, operation: Operation[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """As `ForgeClient.call`."""
        return await self._run(self._call_flow(operation, *args, **kwargs))

    async def aclose(self) -> None:
        """Closes the client and all its siblings. Calls in flight, in other tasks, go on to their end."""
        await self._pool.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def _run(self, flow: Flow[T]) -> Coroutine[Any, Any, T]:
        return run_flow(flow, self._pool.send)


async def run_flow(flow: Flow[T], send: Callable[[httpx.Request, float], Awaitable[Response]]) -> T:
    """Carry out a flow, with `send` for its requests."""
    outcome: Response | Failure | None = None
    while True:
        try:
            step = flow.send(outcome)
        except StopIteration as end:
            return cast(T, end.value)
        try:
            if isinstance(step, Sleep):
                await asyncio.sleep(step.seconds)
                outcome = None
            else:
                try:
                    outcome = await send(step.request, step.timeout)
                except FAILURES as error:
                    outcome = error
        except BaseException:
            flow.close()
            raise
