"""What of a stream is not published yet: merged, bounded and counted. It does no I/O and never waits.

Each publish of a stream carries one envelope, a JSON text:

    {"forgeStream":1,"stream":"<32 hex digits>","seq":0,"merge":"append","data":"Hel","updates":3,"end":false}

`seq` counts the publishes of the stream from 0. `data` is what the updates since the last one were merged to; an end mark
alone has none. After a block that raised, the last one has `"error"` too: the name of the exception's type.
"""

from __future__ import annotations

import json
import math
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias

from attrs import define, evolve, frozen

from .._core.call import Flow
from .._core.encoding import encode_json
from .._core.errors import Delivery, StreamReport, UsageError
from .._core.retry import RetryPolicy, is_number, is_plain_function
from .._realtime.results import PublishResult

Merge: TypeAlias = Literal["append", "latest", "batch"] | Callable[[Any, Any], Any]
Overflow: TypeAlias = Literal["wait", "merge", "drop_oldest", "raise"]

# So many times the size at which a publish does not wait for its time.
_PENDING_EVENTS: Final = 64
_DAY: Final = 86_400.0
_AROUND: Final = {"append": ('"', '"'), "batch": ("[", "]")}
_COUNTED: Final = {
    Delivery.ACCEPTED: "sent",
    Delivery.NOT_SENT: "dropped",
    Delivery.REJECTED: "rejected",
    Delivery.UNKNOWN: "unknown",
}


@frozen
class StreamSettings:
    """How a stream merges, paces and bounds its updates; as the clients' `stream` describes them.

    Raises:
        UsageError: A value makes no sense.
    """

    merge: Merge
    interval: float
    max_bytes: int
    max_pending: int
    overflow: Overflow
    deadline: float

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
        for name in ("max_bytes", "max_pending"):
            if not (type(value := getattr(self, name)) is int and value >= 1):
                raise UsageError(f"stream: {name} must be a whole number of at least 1.")


@frozen(eq=False)
class PublishSlot:
    """One publish of a stream, before it is known what it carries.

    Attributes:
        reserve: Waits until it may begin, at most until then, in seconds of `time.monotonic()`.
        publish: Publishes a payload; what has been reserved is used up by the first attempt.
    """

    reserve: Callable[[float], Flow[bool]]
    publish: Callable[[str, RetryPolicy], Flow[PublishResult]]


@frozen(eq=False, repr=False)
class Update:
    """One update, or some that were merged.

    Attributes:
        text: As JSON, without the quotes or brackets that the envelope puts around what is joined.
        size: Bytes of it.
        updates: How many.
        value: What the caller's reducer is given.
    """

    text: str
    size: int
    updates: int = 1
    value: Any = None


@define(eq=False, repr=False)
class Envelope:
    """One publish.

    Attributes:
        payload: The envelope, the same in every attempt.
        updates: How many it carries.
        last: Whether it says that the stream has ended.
        delivery: What is known of it from the attempts so far.
        body: Of the attempt that is being made: a `TrackedBody`, or what the quota sends to look up the installation.
    """

    payload: str
    updates: int
    last: bool
    delivery: Delivery = Delivery.NOT_SENT
    body: object = None


class Buffer:
    """The updates that wait, and what became of those that do not. Thread-safe."""

    def __init__(self, settings: StreamSettings) -> None:
        self._settings = settings
        merge = settings.merge
        self._merge: str = merge if isinstance(merge, str) else "reduce"
        self._reduce = None if isinstance(merge, str) else merge
        self._id = os.urandom(16).hex()
        self._seq = 0
        self._items: deque[Update] = deque()
        self._bytes = 0
        # From so many bytes on, whoever adds to them wakes the publisher.
        self._wake_from: float = 0
        self._taken = 0
        self._settled = StreamReport()
        self._wake: Callable[[], object] = bool
        self._refusal: Callable[[], Exception] | None = _not_open
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Makes the locks anew; for a forked process."""
        # Reentrant: a refusal asks for the report.
        self._lock = threading.RLock()
        # Apart, so that a slow reducer does not keep the publisher waiting.
        self._reducing = threading.Lock()

    def item(self, update: object) -> Update:
        """Checks and encodes an update.

        Raises:
            UsageError: It is of another type than is merged, or cannot be JSON.
        """
        if self._merge == "append":
            if not isinstance(update, str):
                raise UsageError(
                    f"stream: merge='append' joins texts, and this update is of the type {type(update).__name__}. Send a str, "
                    "or choose merge='batch' or 'latest'."
                )
            encoded = encode_json(update, "the update")[1:-1]
        else:
            encoded = encode_json(update, "the update")
        # With the comma.
        size = len(encoded) + (self._merge == "batch")
        # Read anew: the caller may change the update, or send the same object again.
        return Update(encoded.decode(), size, value=json.loads(encoded) if self._reduce else None)

    def offer(self, item: Update) -> bool:
        """Takes it in; False when there is no room for it yet.

        Raises:
            ForgeRealtimeError: Nothing is taken in, as the stream is not open, closed or refused.
        """
        if self._reduce is not None:
            self._reduce_to(item, self._reduce)
            return True
        with self._lock:
            self._check()
            if self._merge == "latest":
                self._replace(item)
            elif self._make_room(item):
                self._append(item)
            else:
                return False
        return True

    def is_due(self, *, at_once: bool, end: bool) -> bool:
        """Whether there is something to publish now; if not, the publisher is woken as soon as there is.

        Args:
            at_once: Whether what waits may go out; else it may if it is enough.
            end: Whether the block has ended, and that is to be published.
        """
        with self._lock:
            if end or (self._items and (at_once or self._bytes >= self._settings.max_bytes)):
                return True
            self._wake_from = self._settings.max_bytes if self._items else 0
            return False

    def take(self, *, end: bool, error: str | None) -> Envelope:
        """Takes out what the next publish is to carry.

        Args:
            end: Whether the block has ended, and the last publish says so.
            error: What the block raised.
        """
        with self._lock:
            item = None
            if self._items:
                item = self._join(self._pop_some(self._items))
                self._bytes = self._bytes - item.size if self._items else 0
                self._taken += item.updates
            last = end and not self._items
            envelope = Envelope(self._envelope(item, last, error), item.updates if item else 0, last)
            self._seq += 1
            self._wake_from = math.inf
            return envelope

    def settle(self, envelope: Envelope, delivery: Delivery) -> None:
        """Counts what became of a publish."""
        updates = envelope.updates
        name = _COUNTED[delivery]
        with self._lock:
            self._taken -= updates
            counts = {
                name: getattr(self._settled, name) + updates,
                "merged": self._settled.merged + max(0, updates - 1),
            }
            self._settled = evolve(self._settled, **counts)

    def count_operation(self) -> None:
        """Counts an attempt that may have reached the platform."""
        with self._lock:
            self._settled = evolve(self._settled, operations=self._settled.operations + 1)

    def open(self, wake: Callable[[], object]) -> None:
        """Takes updates in from now on.

        Args:
            wake: Called when there is more to publish than the last `take` waits for. It must not block.
        """
        with self._lock:
            self._wake = wake
            self._refusal = None

    def close(self) -> None:
        """Takes no more in. What waits is still to be taken out."""
        with self._lock:
            self._refusal = self._refusal or _closed

    def refuse(self, refusal: Callable[[], Exception]) -> None:
        """Takes no more in, as `refusal` says, and drops what waits."""
        with self._lock:
            self._refusal = refusal
            dropped = self._settled.dropped + sum(item.updates for item in self._items)
            self._settled = evolve(self._settled, dropped=dropped)
            self._items.clear()

    def check(self) -> None:
        """Raises what `offer` would raise for any update."""
        with self._lock:
            self._check()

    @property
    def waiting(self) -> bool:
        """Whether anything waits to be taken."""
        return bool(self._items)

    def report(self) -> StreamReport:
        """What became of the updates so far."""
        with self._lock:
            pending = self._taken + sum(item.updates for item in self._items)
            return evolve(self._settled, updates=self._settled_updates() + pending, pending=pending)

    def settled(self) -> int:
        """How many updates are no longer pending."""
        with self._lock:
            return self._settled_updates()

    def _settled_updates(self) -> int:
        report = self._settled
        return report.sent + report.dropped + report.rejected + report.unknown

    def _check(self) -> None:
        if self._refusal is not None:
            raise self._refusal()

    def _reduce_to(self, item: Update, reduce: Callable[[Any, Any], Any]) -> None:
        with self._reducing:
            with self._lock:
                self._check()
                state = self._items[0] if self._items else None
            merged = item
            if state is not None:
                value = reduce(state.value, item.value)
                encoded = encode_json(value, "what the function given as merge= returned")
                merged = Update(encoded.decode(), len(encoded), state.updates + 1, value)
            with self._lock:
                self._check()
                # While it was reduced, the state may have gone out.
                if state is not None and self._items and self._items[0] is state:
                    self._put([merged])
                else:
                    self._append(item)

    def _replace(self, item: Update) -> None:
        if self._items:
            self._put([evolve(item, updates=self._items[0].updates + 1)])
        else:
            self._append(item)

    def _make_room(self, item: Update) -> bool:
        overflow = self._settings.overflow
        if not self._has_room(item) and overflow == "merge":
            rest, joined = self._items.copy(), []
            while rest:
                joined.append(self._join(self._pop_some(rest)))
            self._put(joined)
        if overflow == "drop_oldest":
            while not self._has_room(item):
                self._drop_oldest()
        return self._has_room(item)

    def _has_room(self, item: Update) -> bool:
        most = _PENDING_EVENTS * self._settings.max_bytes
        return not self._items or (len(self._items) < self._settings.max_pending and self._bytes + item.size <= most)

    def _put(self, items: list[Update]) -> None:
        """Has these wait in place of what does; at once, so that an interrupt loses nothing."""
        size = sum([item.size for item in items])
        self._items, self._bytes = deque(items), size
        self._wake_if_enough()

    def _append(self, item: Update) -> None:
        self._items.append(item)
        self._bytes += item.size
        self._wake_if_enough()

    def _wake_if_enough(self) -> None:
        if self._bytes >= self._wake_from:
            self._wake()
            # Not before: an interrupt in between would have nobody wake it.
            self._wake_from = math.inf

    def _drop_oldest(self) -> None:
        rest = self._items.copy()
        oldest = rest.popleft()
        size = self._bytes - oldest.size if rest else 0
        settled = evolve(self._settled, dropped=self._settled.dropped + oldest.updates)
        # At once, as in _put.
        self._items, self._bytes, self._settled = rest, size, settled

    def _pop_some(self, items: deque[Update]) -> list[Update]:
        """The oldest ones, as many as one publish carries."""
        taken = [items.popleft()]
        size = taken[0].size
        while items and size + items[0].size <= self._settings.max_bytes:
            taken.append(items.popleft())
            size += taken[-1].size
        return taken

    def _join(self, items: list[Update]) -> Update:
        if len(items) == 1:
            return items[0]
        text = ("," if self._merge == "batch" else "").join([item.text for item in items])
        return Update(text, sum(item.size for item in items), sum(item.updates for item in items))

    def _envelope(self, item: Update | None, last: bool, error: str | None) -> str:
        parts = [f'{{"forgeStream":1,"stream":"{self._id}","seq":{self._seq},"merge":"{self._merge}"']
        if item is not None:
            before, after = _AROUND.get(self._merge, ("", ""))
            parts.append(f'"data":{before}{item.text}{after}')
        parts += [f'"updates":{item.updates if item else 0}', f'"end":{"true" if last else "false"}']
        if last and error is not None:
            parts.append(f'"error":{json.dumps(error)}')
        return ",".join(parts) + "}"


def _not_open() -> UsageError:
    return UsageError("This stream is not open: use it as `with live.stream(...) as stream:`, or `async with`.")


def _closed() -> UsageError:
    return UsageError("This stream has ended with its block: make another one.")
