"""The asyncio client for any operation behind the egress sidecar."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, cast

from .._core.call import Flow, Instrument, Sleep
from .._core.errors import ForgeRealtimeError
from .._core.http import httpx
from .._core.responses import Operation, P, Response, T
from .._transports.event_loop import running_loop
from .._transports.http_client import AsyncHttpx2Client, AsyncHttpx2Transport, async_transport
from .._transports.lazy_imports import ASYNC_MODULES, import_lazy_modules
from .._transports.timeouts import call_later
from .forge import BaseClient

if TYPE_CHECKING:
    from .._core.policy import RetryPolicy
    from .._transports.async_pool import AsyncConnectionPool
    from .settings import ClientSettings

AsyncTransport: TypeAlias = httpx.AsyncBaseTransport | AsyncHttpx2Transport | Literal["aiohttp", "httpx"]


class AsyncForgeClient(BaseClient["AsyncConnectionPool"]):
    """A client with asyncio.

    Make one for the life of the process, and a sibling of it for each invocation or installation. Safe to use from many
    tasks and event loops.

    Args:
        base_url: Address of the egress sidecar. By default, the environment variable `FORGE_EGRESS_PROXY_URL` at each
            call, which the platform sets in the container.
        retry: When calls are retried; by default `RetryPolicy()`.
        transport: `"aiohttp"` to use aiohttp's connections, which take a third less time and need the extra `aiohttp`;
            `"httpx"`, the default, to use httpx's. Or any asynchronous transport of httpx or httpx2 to use instead of
            them.
        http_client: An asynchronous client of httpx or httpx2 to send with, including its event hooks, headers,
            authentication and proxies. It stays open when this client is closed.
        instrument: Traces and measures calls, such as `forge_realtime.otel.Instrumentation()`; nothing by default.
        show_response: Quote the platform's response in the message of an error, which logs and traces show too. It may
            repeat what was sent.

    Raises:
        UsageError: The address is no http(s) URL, or an argument has the wrong type.
    """

    _pool: AsyncConnectionPool

    def __init__(
        self,
        base_url: str | None = None,
        *,
        retry: RetryPolicy | None = None,
        transport: AsyncTransport | None = None,
        http_client: httpx.AsyncClient | AsyncHttpx2Client | None = None,
        instrument: Instrument | None = None,
        show_response: bool = False,
    ) -> None:
        from .._core.policy import RetryPolicy
        from .settings import ClientSettings

        retry = RetryPolicy() if retry is None else retry
        settings = ClientSettings(base_url=base_url, retry=retry, instrument=instrument, show_response=show_response)
        self._set_up(settings, transport, http_client)

    def _set_up(self, settings: ClientSettings, transport: AsyncTransport | None, http_client: object) -> None:
        # It loads httpcore, as httpx does when its first client is made.
        from .._transports.async_pool import AsyncConnectionPool

        self._settings = settings
        if http_client is None and (transport is None or transport in ("aiohttp", "httpx")):
            self._pool = AsyncConnectionPool(None, aiohttp=transport == "aiohttp")
        else:
            self._pool = AsyncConnectionPool(async_transport(transport, http_client))
        import_lazy_modules(*ASYNC_MODULES)

    async def call(self, operation: Operation[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
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
        return await self._run(flow)

    async def aclose(self) -> None:
        """Close the client and all its siblings. Calls in flight in other tasks run to their end."""
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
    outcome: Response | Exception | None = None
    running_loop()
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
                await _sleep(step)
            else:
                try:
                    outcome = await send(step.request, step.timeout)
                except (ForgeRealtimeError, MemoryError):
                    raise
                except Exception as error:  # noqa: BLE001 (whatever the app's transport, hook or tracer raises)
                    outcome = error
        except BaseException:
            flow.close()
            raise


async def _sleep(step: Sleep) -> None:
    loop = asyncio.get_running_loop()
    end = loop.create_future()

    def wake() -> None:
        loop.call_soon_threadsafe(_finish, end)

    timer = call_later(step.seconds, lambda: _finish(end))
    try:
        if step.waker is None or step.waker.begin(wake):
            await end
    finally:
        if step.waker is not None:
            step.waker.end()
        timer.cancel()


def _finish(end: asyncio.Future[None]) -> None:
    if not end.done():
        end.set_result(None)
