"""Publish to live subscribers on the embedded emulator, and compare the events that arrive with those sent.

The exit code is 0 only if every event arrived exactly as it was sent. With --serve the emulator and its console stay
open until Ctrl-C.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from forge_realtime import Attempt, Delivery, PublishResult, RealtimeClient, RetryPolicy, __version__
from forge_realtime_emulator import Emulator, Subscription


def show(label: str, text: object) -> None:
    print(f"   {label:<9} {text}", flush=True)


def show_attempt(attempt: Attempt) -> None:
    outcome = f"status {attempt.status}, " if attempt.status else ""
    retry = "" if attempt.wait is None else f"; retried after {attempt.wait:g} s"
    show("attempt", f"{attempt.number}: {outcome}{attempt.delivery.value}{retry}")


class Demo:
    def __init__(self) -> None:
        self.arrived: list[bool] = []

    def deliver(
        self, title: str, publish: Callable[[Any], PublishResult], payload: Any, subscription: Subscription
    ) -> PublishResult:
        """Publish, and compare the event that the subscriber receives with the one sent."""
        print(f"\n{len(self.arrived) + 1}. {title}")
        sent = payload if isinstance(payload, str) else json.dumps(payload, ensure_ascii=False, separators=(",", ":"))
        show("sent", sent)
        began = time.perf_counter()
        result = publish(payload)
        event = subscription.receive(timeout=5)
        same = (event.payload, event.event_id) == (sent, result.event_id)
        show("arrived", f"{event.payload}   ({(time.perf_counter() - began) * 1000:.1f} ms, event {event.event_id})")
        if not same:
            show("WRONG", "this is not the event that was sent")
        self.arrived.append(same)
        return result

    def expect_no_more(self, subscription: Subscription) -> None:
        with contextlib.suppress(TimeoutError):
            show("WRONG", f"arrived twice: {subscription.receive(timeout=0).payload}")
            self.arrived[-1] = False


def main(*, serve: bool) -> int:
    demo = Demo()
    with (
        Emulator() as emulator,
        RealtimeClient(emulator.url, retry=RetryPolicy(on_attempt=show_attempt)) as realtime,
    ):
        print(f"forge-realtime {__version__} against the embedded emulator at {emulator.url}")
        live = realtime.for_invocation({"x-forge-invocation-id": "invocation-123"})

        with emulator.subscribe("board-42") as board, emulator.subscribe("news", is_global=True) as news:
            demo.deliver(
                "publish on the channel board-42, in the scope of the invocation",
                lambda payload: live.publish("board-42", payload),
                {"moved": 7, "to": "Prêt ✓"},
                board,
            )
            demo.deliver(
                "publish_global on the channel news, for the installation",
                lambda payload: realtime.for_installation("installation-1").publish_global("news", payload),
                "plain text, as it is",
                news,
            )
            emulator.fail_next(status=429, retry_after=1)
            throttled = demo.deliver(
                "publish again, with one injected 429",
                lambda payload: live.publish("board-42", payload),
                {"moved": 8},
                board,
            )
            demo.expect_no_more(board)
            demo.expect_no_more(news)

        print("\n   sign a token for the channel team, with the claims {'team': 'red'}")
        signed = live.sign_realtime_token("team", {"team": "red"})
        show("signed", f"expires {signed.expires_at}")
        with emulator.subscribe("team", token=signed.token) as team:
            demo.deliver(
                "publish with that token, to a subscriber with a token of the same claims",
                lambda payload: live.publish("team", payload, token=signed),
                ["for", "the red team"],
                team,
            )

        print("\n5. publish on a channel without subscribers")
        unheard = live.publish("nobody", "hello?")
        show("event id", unheard.event_id)

        retried = [attempt.delivery for attempt in throttled.attempts] == [Delivery.REJECTED, Delivery.ACCEPTED]
        good = all(demo.arrived) and retried and unheard.event_id is None
        exact = f"{sum(demo.arrived)} of {len(demo.arrived)}"
        print(f"\n{exact} events arrived exactly as sent. Retried after the 429: {retried}.")
        if good and serve:
            print(f"\nThe console shows all of it: {emulator.url}/   (Ctrl-C ends it)", flush=True)
            wait_for_the_end()
    return 0 if good else 1


def wait_for_the_end() -> None:
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    ended.wait()


if __name__ == "__main__":
    try:
        sys.exit(main(serve=sys.argv[1:] == ["--serve"]))
    except KeyboardInterrupt:
        sys.exit(130)
