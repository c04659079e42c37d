"""Buffer of updates waiting to be published. Does no I/O and never waits.

Each publish of a stream carries one envelope, a JSON text, as docs/stream-envelope.md specifies it:

    {"forgeStream":2,"stream":"<32 hex digits>","merge":"append","seq":0,"data":"Hel","updates":3,"end":false, ...}
"""

from __future__ import annotations

import json
import logging
import math
import os
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Literal, TypeAlias

from attrs import evolve, frozen

from .._core.attempts import StreamReport
from .._core.call import Flow
from .._core.encoding import Encode, encode_json
from .._core.errors import Delivery, UsageError
from .._core.hidden import Hidden
from .._core.log import log
from .._core.policy import RetryPolicy
from .._core.retry import is_number, is_plain_function
from .snapshots import Part, Snapshots

Merge: TypeAlias = Literal["append", "latest", "batch"] | Callable[[Any, Any], Any]
Overflow: TypeAlias = Literal["wait", "merge", "drop_oldest", "raise"]
# Takes the stream id, the digest and the value.
KeepValue: TypeAlias = Callable[[str, str, Any], Awaitable[None] | None]

_DAY: Final = 86_400.0
# A buffer holds the bytes of this many full envelopes.
_PENDING_ENVELOPES: Final = 64
_BRACKETS: Final = {"append": ('"', '"'), "batch": ("[", "]")}
_COUNTED: Final = {
    Delivery.ACCEPTED: "sent",
    Delivery.NOT_SENT: "dropped",
    Delivery.REJECTED: "rejected",
    Delivery.UNKNOWN: "unknown",
}


@frozen(kw_only=True)
class StreamOptions:
    """How a stream merges, paces and bounds its updates. `RealtimeClient.stream` describes each option."""

    merge: Merge = "append"
    interval: float = 0.25
    max_bytes: int = 16_384
    max_pending: int = 1_000
    overflow: Overflow = "wait"
    deadline: float = 10.0
    snapshot: bool | KeepValue = True
    snapshot_interval: float = 5.0
    encode: Encode | None = None

    def __attrs_post_init__(self) -> None:
        if self.merge not in ("append", "latest", "batch") and not is_plain_function(self.merge):
            raise UsageError(
                "stream: merge must be 'append', 'latest', 'batch' or a plain function (not async) of two updates."
            )
        if self.overflow not in ("wait", "merge", "drop_oldest", "raise"):
            raise UsageError("stream: overflow must be 'wait', 'merge', 'drop_oldest' or 'raise'.")
        if not (is_number(self.interval) and 0 <= self.interval <= _DAY):
            raise UsageError("stream: interval must be a number of seconds, 0 or more and a day at most.")
        if not (is_number(self.deadline) and 0 < self.deadline <= _DAY):
            raise UsageError("stream: deadline must be a positive number of seconds, a day at most.")
        if not (isinstance(self.snapshot, bool) or callable(self.snapshot)):
            raise UsageError("stream: snapshot must be True, False or a function of stream id, digest and value.")
        if not (is_number(self.snapshot_interval) and 0 < self.snapshot_interval <= _DAY):
            raise UsageError("stream: snapshot_interval must be a positive number of seconds, a day at most.")
        for name in ("max_bytes", "max_pending"):
            if not (type(value := getattr(self, name)) is int and value >= 1):
                raise UsageError(f"stream: {name} must be a whole number of at least 1.")


@frozen(eq=False)
class PublishSlot:
    """Permission for one publish, asked for before its payload is known."""

    # Waits until the publish may start, at most until this time of `clock.monotonic()`.
    reserve: Callable[[float], Flow[bool]]
    # The first attempt uses the reservation.
    publish: Callable[[str, RetryPolicy], Flow[object]]
    # If a `Retry-After` holds longer than this time, lets the next attempt begin, and returns True.
    skip_hold: Callable[[float], bool]


Slots: TypeAlias = Callable[[], PublishSlot]


@frozen(eq=False, repr=False)
class Update:
    """One encoded update, or several merged ones: JSON without the quotes or brackets of the envelope."""

    text: str
    # In bytes.
    size: int
    updates: int = 1


@frozen(eq=False, repr=False)
class Envelope:
    """One publish of a stream. Every attempt sends the same payload."""

    payload: str
    updates: int
    last: bool
    # The digest in its snapshot, and the value as JSON that the app is to keep under this name.
    stored: tuple[str, str] | None = None


class Buffer:
    """Buffer of the updates of one stream, and counts of what became of them. Thread-safe."""

    __slots__ = (
        "_bytes",
        "_folder",
        "_lock",
        "_merge",
        "_options",
        "_pending",
        "_reduce",
        "_reducer",
        "_reducing",
        "_refusal",
        "_seq",
        "_settled",
        "_snapshots",
        "_taken",
        "_wake",
        "_wake_from",
        "stream_id",
    )

    def __init__(self, options: StreamOptions) -> None:
        self.stream_id = os.urandom(16).hex()
        self._options = options
        self._merge: str = options.merge if isinstance(options.merge, str) else "reduce"
        self._reduce = None if isinstance(options.merge, str) else options.merge
        self._snapshots = (
            None
            if options.snapshot is False
            else Snapshots(
                self._merge,
                self._fold,
                options.max_bytes,
                options.snapshot_interval,
                stored=options.snapshot is not True,
            )
        )
        self._seq = 0
        # No deque: it takes 0.7 KiB.
        self._pending: list[Update] = []
        self._bytes = 0
        # The publisher is woken when this many bytes are pending.
        self._wake_from: float = 0
        self._wake: Callable[[], object] = lambda: None
        self._taken = 0
        self._settled = StreamReport()
        self._refusal: Callable[[], Exception] | None = lambda: UsageError(
            "This stream is not open: use it in a block, `with live.stream(...) as stream:` or `async with`."
        )
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Replace the locks: a thread that the child does not have may hold them."""
        # Reentrant: a refusal reads the report.
        self._lock = threading.RLock()
        # Apart, so that a slow merge function does not block the publisher.
        self._reducing = threading.Lock()
        self._reducer: int | None = None
        self._folder: int | None = None

    def encode(self, update: Hidden[Any]) -> Update:
        """Check and encode an update. Raise UsageError if it has the wrong type for `merge`, or cannot be JSON."""
        if self._merge == "append" and not isinstance(update.value, str):
            raise UsageError(
                f"stream: merge='append' takes strings, and this update is of type {type(update.value).__name__}. Send "
                "a str, or choose merge='batch' or 'latest'."
            )
        encoded = self._json(update, "the update")
        if self._merge == "append":
            encoded = encoded[1:-1]
        # A batch needs a comma for each update.
        size = len(encoded) + (self._merge == "batch")
        return Update(encoded.decode(), size)

    def _json(self, value: Hidden[Any], what: str) -> bytes:
        """Encode a value, with the app's encoder unless it is a string. An envelope can carry nothing but JSON."""
        if self._options.encode is None or isinstance(value.value, str):
            return encode_json(value.value, what)
        encoded = encode_json(value.value, what, self._options.encode)
        try:
            json.loads(encoded)
        except (ValueError, RecursionError):
            valid = False
        else:
            valid = True
        if not valid:
            del encoded
            raise UsageError(f"{what} cannot be encoded: the function given as encode= must return JSON for a stream.")
        return encoded

    def offer(self, update: Update) -> bool:
        """Take an update, and return True; return False if there is no room for it."""
        if self._reduce is not None:
            self._reduce_to(update, self._reduce)
            return True
        with self._lock:
            self.check()
            if self._merge == "latest" and self._pending:
                self._put([evolve(update, updates=self._pending[0].updates + 1)])
            elif self._make_room(update):
                self._append(update)
            else:
                return False
        return True

    def is_due(self, *, on_time: bool, end: bool) -> bool:
        """Return whether to publish now. If not, `wake` is called as soon as there is a reason to look again.

        Before the interval has passed (`on_time`), only `max_bytes` of updates or the `end` are a reason to publish.
        """
        with self._lock:
            if end or (self._pending and (on_time or self._bytes >= self._options.max_bytes)):
                return True
            self._wake_from = self._options.max_bytes if self._pending else 0
            return False

    def take(self, *, ending: Mapping[str, object] | None, now: float) -> Envelope:
        """Take the next envelope.

        Args:
            ending: None while the stream goes on. Otherwise the envelope ends the stream if nothing stays behind, and
                these are its `error` or `stopped`.
            now: Time of `clock.monotonic()`.
        """
        with self._lock:
            updates, size, text, data = 0, 0, "", ""
            if self._pending:
                update = self._pop_merged(self._pending)
                updates, size, text = update.updates, update.size, update.text
                self._bytes = self._bytes - size if self._pending else 0
                self._taken += updates
                before, after = _BRACKETS.get(self._merge, ("", ""))
                data = f'"data":{before}{text}{after},'
            last = ending is not None and not self._pending
            part = None
            if self._snapshots is not None:
                self._snapshots.add(text, size, updates, now)
                part = self._snapshots.with_end(size, now) if last else self._snapshots.with_update(size, now)
            start = f'"seq":{self._seq},{data}"updates":{updates},'
            self._seq += 1
            self._wake_from = math.inf
            return self._envelope(start, ending if last else None, part, updates)

    @property
    def snapshot_every(self) -> float | None:
        """Seconds within which the value is repeated; None if it is not."""
        return None if self._snapshots is None else self._snapshots.every

    def drop_snapshot(self) -> None:
        """Give up the snapshot of which parts were published, and make another one later."""
        with self._lock:
            if self._snapshots is not None:
                self._snapshots.drop()

    def snapshot_at(self) -> float:
        """Return when to publish a part of a snapshot in an envelope of its own."""
        return math.inf if self._snapshots is None else self._snapshots.alone_at()

    def take_snapshot(self, now: float) -> Envelope | None:
        """Take an envelope that carries only a part of a snapshot."""
        with self._lock:
            part = None if self._snapshots is None else self._snapshots.alone(now)
            return None if part is None else self._envelope("", None, part)

    def final_snapshot(self, ending: Mapping[str, object], *, again: bool) -> list[Envelope]:
        """Return the envelopes of the final snapshot: the part that the last envelope did not carry, or all `again`."""
        with self._lock:
            if self._snapshots is None:
                return []
            parts = self._snapshots.all_parts() if again else self._snapshots.rest()
            return [self._envelope("", ending, part) for part in parts]

    def request_snapshot(self, now: float) -> None:
        """Publish the whole value soon."""
        with self._lock:
            if self._snapshots is not None:
                self._snapshots.request(now)
                # The publisher may be waiting for the next update.
                self._wake()

    def _envelope(
        self, update: str, ending: Mapping[str, object] | None, part: Part | None, updates: int = 0
    ) -> Envelope:
        end = "false" if ending is None else "true"
        more = [f',"{name}":{json.dumps(value, separators=(",", ":"))}' for name, value in (ending or {}).items()]
        if (every := self.snapshot_every) is not None:
            more.append(f',"snapshotEvery":{every:g}')
        if part is not None:
            more.append(f',"snapshot":{part.json}')
        start = f'{{"forgeStream":2,"stream":"{self.stream_id}","merge":"{self._merge}",{update}"end":{end}'
        stored = None if part is None else part.stored
        return Envelope(f"{start}{''.join(more)}}}", updates, last=ending is not None, stored=stored)

    def settle(self, envelope: Envelope, delivery: Delivery) -> None:
        """Count what became of an envelope."""
        with self._lock:
            self._taken -= envelope.updates
            settled, name = self._settled, _COUNTED[delivery]
            merged = settled.merged + max(0, envelope.updates - 1)
            self._settled = evolve(settled, merged=merged, **{name: getattr(settled, name) + envelope.updates})

    def count_operation(self) -> None:
        """Count an attempt that may have reached the platform."""
        with self._lock:
            self._settled = evolve(self._settled, operations=self._settled.operations + 1)

    def open(self, wake: Callable[[], object]) -> None:
        """Start to take updates. `wake` is called when there is something to publish; it must not block."""
        with self._lock:
            self._wake = wake
            self._refusal = None

    def close(self, refusal: Callable[[], Exception] | None = None) -> None:
        """Take no more updates. Pending ones can still be published. `refusal` makes the error for further ones."""
        with self._lock:
            if self._refusal is None:
                self._refusal = refusal or (lambda: UsageError("This stream ended with its block: make another one."))

    def refuse(self, refusal: Callable[[], Exception]) -> None:
        """Drop what is pending, and raise the error that `refusal` makes for each further update."""
        with self._lock:
            self._refusal = refusal
            dropped = self._settled.dropped + sum(update.updates for update in self._pending)
            self._settled = evolve(self._settled, dropped=dropped)
            self._pending.clear()

    def check(self) -> None:
        """Raise an error if the stream takes no updates."""
        refusal = self._refusal
        if refusal is not None:
            raise refusal()

    @property
    def is_empty(self) -> bool:
        """Whether no update is waiting."""
        return not self._pending

    @property
    def report(self) -> StreamReport:
        """What became of the updates so far."""
        with self._lock:
            pending = self._taken + sum(update.updates for update in self._pending)
            return evolve(self._settled, updates=self.settled() + pending, pending=pending)

    def settled(self) -> int:
        """Return how many updates are no longer pending."""
        report = self._settled
        return report.sent + report.dropped + report.rejected + report.unknown

    def _reduce_to(self, update: Update, reduce: Callable[[Any, Any], Any]) -> None:
        if threading.get_ident() in (self._reducer, self._folder):
            raise UsageError("stream: the function given as merge= must not send to its own stream.")
        with self._reducing:
            with self._lock:
                self.check()
                if not self._pending:
                    self._append(update)
                    return
                state = self._pending[0]
            self._reducer = threading.get_ident()
            try:
                # Decoded anew each time: the function may change what it gets, and then raise.
                value = Hidden(reduce(json.loads(state.text), json.loads(update.text)))
                encoded = self._json(value, "the return value of the function given as merge=")
            finally:
                self._reducer = None
            with self._lock:
                self.check()
                # The state may have been taken while the function ran.
                if self._pending and self._pending[0] is state:
                    self._put([Update(encoded.decode(), len(encoded), state.updates + 1)])
                else:
                    self._append(update)

    def _fold(self, states: list[str]) -> str | None:
        """Combine the states of several envelopes for a snapshot. Return None if the app's function fails."""
        reduce = self._reduce
        assert reduce is not None
        self._folder = threading.get_ident()
        try:
            value = json.loads(states[0])
            for state in states[1:]:
                value = reduce(value, json.loads(state))
            return self._json(Hidden(value), "the return value of the function given as merge=").decode()
        except Exception as error:  # noqa: BLE001 (the app's own code; the updates are not affected)
            log(
                logging.WARNING,
                "stream: no more snapshots: the function given as merge= raised %s",
                type(error).__name__,
            )
            return None
        finally:
            self._folder = None

    def _make_room(self, update: Update) -> bool:
        if self._options.overflow == "merge" and not self._has_room(update):
            rest, joined = self._pending.copy(), []
            while rest:
                joined.append(self._pop_merged(rest))
            self._put(joined)
        while self._options.overflow == "drop_oldest" and not self._has_room(update):
            self._drop_oldest()
        return self._has_room(update)

    def _has_room(self, update: Update) -> bool:
        too_many = len(self._pending) >= self._options.max_pending
        too_large = self._bytes + update.size > _PENDING_ENVELOPES * self._options.max_bytes
        return not self._pending or not (too_many or too_large)

    def _put(self, updates: list[Update]) -> None:
        """Replace all pending updates in a single step, so that an interrupt loses nothing."""
        self._pending, self._bytes = updates, sum([update.size for update in updates])
        self._wake_if_enough()

    def _append(self, update: Update) -> None:
        self._pending.append(update)
        self._bytes += update.size
        self._wake_if_enough()

    def _wake_if_enough(self) -> None:
        if self._bytes >= self._wake_from:
            self._wake()
            # In this order: after an interrupt in between, the next update wakes the publisher again.
            self._wake_from = math.inf

    def _drop_oldest(self) -> None:
        rest = self._pending.copy()
        oldest = rest.pop(0)
        size = self._bytes - oldest.size if rest else 0
        settled = evolve(self._settled, dropped=self._settled.dropped + oldest.updates)
        # A single step, as in _put.
        self._pending, self._bytes, self._settled = rest, size, settled

    def _pop_merged(self, updates: list[Update]) -> Update:
        """Remove the oldest updates, as many as one envelope carries, and merge them."""
        size, count = updates[0].size, 1
        while count < len(updates) and size + updates[count].size <= self._options.max_bytes:
            size += updates[count].size
            count += 1
        taken = updates[:count]
        del updates[:count]
        if count == 1:
            return taken[0]
        text = ("," if self._merge == "batch" else "").join([update.text for update in taken])
        return Update(text, size, sum(update.updates for update in taken))
