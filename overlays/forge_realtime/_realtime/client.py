"""The blocking client for Realtime."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .._client.forge import ForgeClient
from .._core.call import Instrument
from .._core.encoding import Encode, Payload
from .._core.hidden import Hidden
from .._core.http import httpx
from .._core.stop import STOP_PATH
from .._transports.http_client import Httpx2Client, Httpx2Transport
from .base import BaseRealtimeClient

if TYPE_CHECKING:
    from .._core.policy import RetryPolicy
    from .._core.stop import StreamHandle
    from .._quota.limiter import Quota
    from .._streams.buffer import KeepValue, Merge, Overflow
    from .._streams.stream import PrivateStream, Stream
    from .operations import ContextOverride, Permission
    from .results import PublishResult, RealtimeToken


class RealtimeClient(BaseRealtimeClient, ForgeClient):
    """A client for Realtime with blocking I/O.

    Make one for the life of the process, and a sibling of it for each invocation or installation. Thread-safe.

    Args:
        base_url: Address of the egress sidecar. By default, the environment variable `FORGE_EGRESS_PROXY_URL` at each
            call, which the platform sets in the container.
        retry: When calls are retried; by default `RetryPolicy()`.
        transport: Any transport of httpx or httpx2 to use instead of the client's own connections.
        http_client: A client of httpx or httpx2 to send with, including its event hooks, headers, authentication and
            proxies. It stays open when this client is closed.
        cache_tokens: Keep signed tokens for the same invocation or installation, channel, claims and permissions, and
            renew them when a tenth of their life is left. If the platform refuses one as expired, a publish signs it
            anew and is made once more.
        quota: Rate limit for the operations of an installation; calls over it wait within their deadline. Disabled by
            default.
        instrument: Traces and measures calls, such as `forge_realtime.otel.Instrumentation()`; nothing by default.
        encode: Encodes payloads and updates other than `str`, in place of the `json` module: a plain function such as
            `orjson.dumps`, which returns `str` or UTF-8 `bytes`. For streams, that has to be JSON.
        show_response: Quote the platform's response in the message of an error, which logs and traces show too. It may
            repeat what was sent.

    Raises:
        UsageError: The address is no http(s) URL, or an argument has the wrong type.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        retry: RetryPolicy | None = None,
        transport: httpx.BaseTransport | Httpx2Transport | None = None,
        http_client: httpx.Client | Httpx2Client | None = None,
        cache_tokens: bool = False,
        quota: Quota | None = None,
        instrument: Instrument | None = None,
        encode: Encode | None = None,
        show_response: bool = False,
    ) -> None:
        from .._core.policy import RetryPolicy
        from .settings import RealtimeSettings

        retry = RetryPolicy() if retry is None else retry
        settings = RealtimeSettings(
            base_url=base_url,
            retry=retry,
            quota=quota,
            encode=encode,
            instrument=instrument,
            show_response=show_response,
        )
        self._set_up(settings, transport, http_client)
        self._set_up_tokens(cache_tokens)
        from .._streams.worker import StreamWorker

        self._stream_worker = StreamWorker(self._pool)

    def close(self) -> None:
        """Close the client and all its siblings. Calls in flight in other threads run to their end."""
        self._stream_worker.exit()
        super().close()
        self._stream_worker.close()

    def publish(
        self,
        channel: str,
        payload: Payload,
        *,
        token: str | RealtimeToken | None = None,
        context_overrides: Sequence[ContextOverride] | Sequence[str] | None = None,
    ) -> PublishResult:
        """Publish an event to the subscribers of a channel in the context of the invocation.

        Args:
            channel: Name of the channel; case-sensitive.
            payload: A `str` is sent as it is; anything else is encoded as JSON.
            token: A token with the same claims as the subscribers' tokens.
            context_overrides: Parts of the context that replace the default scope: `"board"`, `"issue"`, `"project"`,
                `"content"`, `"space"`, `"repository"` or `"pullRequest"`. They must be exactly those of the
                subscribers. `[]` is no context at all.

        Returns:
            Id and time of the event; both None if nobody was subscribed.

        Raises:
            UsageError: The call was refused before it was sent, for example because the payload cannot be JSON.
            ForgeRealtimeError: The call failed; `delivery` says whether the event may have arrived.
        """
        wrapped_payload, wrapped_token = Hidden(payload), Hidden(token)
        # Crash reporters show the variables of every frame.
        del payload, token
        return self._run(self._publish_flow(channel, wrapped_payload, wrapped_token, context_overrides))

    def publish_global(
        self, channel: str, payload: Payload, *, token: str | RealtimeToken | None = None
    ) -> PublishResult:
        """Publish an event to the global subscribers of a channel, in the whole installation.

        Args:
            channel: Name of the channel; case-sensitive.
            payload: A `str` is sent as it is; anything else is encoded as JSON.
            token: A token with the same claims as the subscribers' tokens.

        Returns:
            Id and time of the event; both None if nobody was subscribed.

        Raises:
            UsageError: The call was refused before it was sent, for example because the payload cannot be JSON.
            ForgeRealtimeError: The call failed; `delivery` says whether the event may have arrived.
        """
        wrapped_payload, wrapped_token = Hidden(payload), Hidden(token)
        del payload, token
        return self._run(self._publish_global_flow(channel, wrapped_payload, wrapped_token))

    def sign_realtime_token(
        self, channel: str, claims: Mapping[str, Any], permissions: Iterable[Permission] | None = None
    ) -> RealtimeToken:
        """Sign a token that restricts a channel to publishers and subscribers with the same claims.

        Args:
            channel: Name of the channel; case-sensitive.
            claims: Must match exactly between publisher and subscriber.
            permissions: `"subscribe"`, `"publish"` or both; both by default.

        Returns:
            The token and the time of its expiry.

        Raises:
            UsageError: The call was refused before it was sent, for example because the claims cannot be JSON.
            ForgeRealtimeError: The call failed. Signing is retried whenever that may help, as a duplicate is harmless.
        """
        wrapped_claims = Hidden(claims)
        del claims
        return self._run(self._sign_flow(channel, wrapped_claims, permissions))

    def stream(
        self,
        channel: str,
        *,
        merge: Merge = "append",
        interval: float = 0.25,
        max_bytes: int = 16_384,
        max_pending: int = 1_000,
        overflow: Overflow = "wait",
        deadline: float = 10.0,
        snapshot: bool | KeepValue = True,
        snapshot_interval: float = 5.0,
        token: str | RealtimeToken | None = None,
        context_overrides: Sequence[ContextOverride] | Sequence[str] | None = None,
    ) -> Stream:
        """Open a stream of updates to the subscribers of a channel in the context of the invocation.

        Send updates as fast as they come: they are published merged, in order and numbered, for the front end's
        `onStream`. The first one is published at once, then all pending ones each `interval` seconds. A publish that
        fails is retried for as long as the block runs, after 10 seconds at most, whatever `Retry-After` says. Without a
        quota of the client, streams keep to `Quota()`.

        Args:
            channel: Name of the channel; case-sensitive.
            merge: How updates that are published together are combined: `"append"` concatenates strings, `"latest"`
                keeps only the newest value, `"batch"` collects a list. Or a plain function that combines two updates;
                it gets them as JSON has them (lists for tuples, say), and must not call the stream.
            interval: Least time between two publishes, in seconds; with 0, each starts when the last one is done.
            max_bytes: Pending bytes of JSON that are published without waiting. An event carries more only if it is a
                single update.
            max_pending: Most pending updates; their bytes may be 64 times `max_bytes`. With `"latest"` or a function
                there is never more than one.
            overflow: What `send` does when there is no room: `"wait"`; `"merge"` the pending updates into as few events
                as `max_bytes` allows, and wait only if that is not enough; `"drop_oldest"`; or `"raise"` a
                StreamFullError.
            deadline: Limit in seconds for the end of the block, a flush, or a `send` that waits.
            snapshot: Repeat the whole value for pages that load late or lose an event, as docs/stream-envelope.md
                says. The stream keeps up to 16 times `max_bytes` of it in memory, and makes no snapshots of larger
                ones. With a function, the app keeps values that do not fit one event: it is called with the stream id,
                a digest and the value, for at most 2 seconds, and the page's `fetchValue` gets that value.
            snapshot_interval: Seconds between two snapshots of a value of up to 4 times `max_bytes`; in proportion more
                for a larger one.
            token: A token with the same claims as the subscribers' tokens.
            context_overrides: As for `publish`.

        Returns:
            The stream, to be used once, as a context manager. The end of the block publishes the pending updates and an
            end mark, which names the type of the exception if the block raised. If the block was interrupted or
            cancelled, it tries for one second only.

        Raises:
            UsageError: The call was refused before anything was sent.
            StreamError: The worker thread cannot start. Or, from the end of the block: not everything was published;
                `report` counts what became of the updates. It never replaces an exception of the block itself.
        """
        from .._streams.buffer import StreamOptions
        from .._streams.worker import load_stream

        options = StreamOptions(
            merge=merge,
            interval=interval,
            max_bytes=max_bytes,
            max_pending=max_pending,
            overflow=overflow,
            deadline=deadline,
            snapshot=snapshot,
            snapshot_interval=snapshot_interval,
            encode=self._encode,
        )
        stream_class = load_stream()
        try:
            slots = self._stream_slots(channel, token, context_overrides)
        finally:
            del token
        return stream_class(options, slots, self._settings.retry, self._stream_worker, self._settings.instrument)

    def stream_global(
        self,
        channel: str,
        *,
        merge: Merge = "append",
        interval: float = 0.25,
        max_bytes: int = 16_384,
        max_pending: int = 1_000,
        overflow: Overflow = "wait",
        deadline: float = 10.0,
        snapshot: bool | KeepValue = True,
        snapshot_interval: float = 5.0,
        token: str | RealtimeToken | None = None,
    ) -> Stream:
        """Open a stream of updates to the global subscribers of a channel, in the whole installation.

        It has no context overrides, and is the only stream for an installation.

        Args:
            channel: Name of the channel; case-sensitive.
            merge: How updates that are published together are combined: `"append"` concatenates strings, `"latest"`
                keeps only the newest value, `"batch"` collects a list. Or a plain function that combines two updates;
                it gets them as JSON has them (lists for tuples, say), and must not call the stream.
            interval: Least time between two publishes, in seconds.
            max_bytes: Pending bytes of JSON that are published without waiting.
            max_pending: Most pending updates.
            overflow: What `send` does when there is no room.
            deadline: Limit in seconds for the end of the block, a flush, or a `send` that waits.
            snapshot: Repeat the whole value for pages that load late or lose an event.
            snapshot_interval: Seconds between two snapshots.
            token: A token with the same claims as the subscribers' tokens.

        Returns:
            The stream, to be used once, as a context manager.

        Raises:
            UsageError: The call was refused before anything was sent.
            StreamError: The worker thread cannot start. Or, from the end of the block: not everything was published.
        """
        from .._streams.buffer import StreamOptions
        from .._streams.worker import load_stream

        options = StreamOptions(
            merge=merge,
            interval=interval,
            max_bytes=max_bytes,
            max_pending=max_pending,
            overflow=overflow,
            deadline=deadline,
            snapshot=snapshot,
            snapshot_interval=snapshot_interval,
            encode=self._encode,
        )
        stream_class = load_stream()
        try:
            slots = self._global_stream_slots(channel, token)
        finally:
            del token
        return stream_class(options, slots, self._settings.retry, self._stream_worker, self._settings.instrument)

    def private_stream(
        self,
        channel: str,
        *,
        claims: Mapping[str, Any] | None = None,
        stop_path: str = STOP_PATH,
        merge: Merge = "append",
        interval: float = 0.25,
        max_bytes: int = 16_384,
        max_pending: int = 1_000,
        overflow: Overflow = "wait",
        deadline: float = 10.0,
        snapshot: bool | KeepValue = True,
        snapshot_interval: float = 5.0,
    ) -> PrivateStream:
        """Open a stream that only the page of one request can read, and stop: for the answer of a language model.

        It is published to the global channel, with a token of claims that no other stream has. Return `stream.handle`
        to the page as JSON, for `onStream(handle, ...)` of streams.js, and go on with the stream in a task:

            stream = live.private_stream("answer", claims={"account": account_id})
            threading.Thread(target=answer, args=[stream, question]).start()
            return stream.handle

        Two tokens are signed: the page's, which may only subscribe, and the stream's, which may only publish and is
        renewed while the stream lives. An answer may take longer than its invocation is valid: once the platform
        refuses that, the stream goes on for the installation, which is looked up with `GET /invocation/context`.
        Each token may take as long as `RetryPolicy.deadline` to sign, and the lookup two seconds.

        Args:
            channel: Name of the channel; case-sensitive.
            claims: More claims for the tokens, such as the account. They are unique without these, too.
            stop_path: Path of the service at which a `StopRoute` takes the page's request to stop the stream.
            merge: How updates that are published together are combined, as for `stream`.
            interval: Least time between two publishes, in seconds.
            max_bytes: Pending bytes of JSON that are published without waiting.
            max_pending: Most pending updates.
            overflow: What `send` does when there is no room.
            deadline: Limit in seconds for the end of the block, a flush, or a `send` that waits.
            snapshot: Repeat the whole value for pages that load late or lose an event.
            snapshot_interval: Seconds between two snapshots.

        Returns:
            The stream, to be used once, as a context manager. The page can stop it from now on.

        Raises:
            UsageError: The call was refused before anything was sent.
            ForgeRealtimeError: The tokens could not be signed.
            StreamError: The worker thread cannot start. Or, from the end of the block: not everything was published.
        """
        wrapped_claims = Hidden(claims)
        del claims
        from .._streams.buffer import StreamOptions
        from .._streams.worker import load_stream

        options = StreamOptions(
            merge=merge,
            interval=interval,
            max_bytes=max_bytes,
            max_pending=max_pending,
            overflow=overflow,
            deadline=deadline,
            snapshot=snapshot,
            snapshot_interval=snapshot_interval,
            encode=self._encode,
        )
        load_stream()
        from .._streams.stream import PrivateStream

        private = self._private_channel(channel, wrapped_claims, stop_path)
        self._run(private.sign_for_stream())
        slots = self._private_slots(private)
        stream = PrivateStream(options, slots, self._settings.retry, self._stream_worker, self._settings.instrument)
        self._run(stream._open_to_page(private.make_handle))  # noqa: SLF001 (not for the app)
        return stream

    def renew_handle(self, handle: Mapping[str, Any]) -> StreamHandle | None:
        """Sign a new token for the page of a private stream, because the token of its handle has expired or will soon.

        Args:
            handle: The handle as the page sent it back; its secret is checked.

        Returns:
            A handle for the same stream. None if no open stream of this process has this id and secret, because it
            has ended, another process has it, or this is no handle.

        Raises:
            ForgeRealtimeError: The token could not be signed.
        """
        try:
            flow = self._renewal(handle)
        finally:
            del handle
        return None if flow is None else self._run(flow)
