"""The subscription of the test kit, in blocking and in asynchronous tests."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from forge_realtime_emulator import Emulator, EmulatorError, SubscriptionClosed, SubscriptionRefused
from forge_realtime_emulator._platform.clock import elapsed
from tests.emulator.api import Api


async def publish(api: Api, channel: str, payload: str = "x") -> None:
    assert (await asyncio.to_thread(api.publish, channel, payload)).status_code == 200


def test_event_is_awaited_while_the_loop_publishes_it(api: Api, channel: str) -> None:
    async def run() -> None:
        async with api.emulator.subscribe(channel) as subscription:
            receiving = asyncio.create_task(subscription.areceive())
            await asyncio.sleep(0)
            await publish(api, channel, "moved")
            event = await receiving
            assert (event.channel, event.payload) == (channel, "moved")

    asyncio.run(run())


def test_events_are_iterated_in_order(api: Api, channel: str) -> None:
    async def run() -> list[str]:
        payloads: list[str] = []
        async with api.emulator.subscribe(channel) as subscription:
            for number in range(3):
                await publish(api, channel, str(number))
            async for event in subscription:
                payloads.append(event.payload)
                if len(payloads) == 3:
                    break
        return payloads

    assert asyncio.run(run()) == ["0", "1", "2"]


def test_blocking_receive_in_an_event_loop_says_what_to_do(api: Api, channel: str) -> None:
    async def run() -> None:
        with api.emulator.subscribe(channel) as subscription:
            began = elapsed()
            with pytest.raises(EmulatorError, match=r"blocks the event loop.*await subscription\.areceive\(\)"):
                subscription.receive(timeout=30)
            assert elapsed() - began < 1
            # What has arrived can be taken without waiting.
            await publish(api, channel)
            await subscription.areceive()
            await publish(api, channel, "second")
            await asyncio.to_thread(wait_for_message, subscription._open()._messages)
            assert subscription.receive(timeout=0).payload == "second"

    asyncio.run(run())


def wait_for_message(messages: object) -> None:
    deadline = elapsed() + 10
    while not messages:
        assert elapsed() < deadline


def test_receive_in_a_thread_of_an_event_loop_works(api: Api, channel: str) -> None:
    async def run() -> None:
        with api.emulator.subscribe(channel) as subscription:
            receiving = asyncio.create_task(asyncio.to_thread(subscription.receive))
            await publish(api, channel)
            assert (await receiving).payload == "x"

    asyncio.run(run())


def test_cancelled_wait_loses_no_event_and_leaves_no_thread(api: Api, channel: str) -> None:
    async def run() -> None:
        async with api.emulator.subscribe(channel) as subscription:
            received: list[str] = []
            for number in range(20):
                receiving = asyncio.create_task(subscription.areceive(timeout=60))
                publishing = asyncio.create_task(publish(api, channel, str(number)))
                await asyncio.sleep(number % 5 / 1000)
                receiving.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    received.append((await receiving).payload)
                await publishing
            while len(received) < 20:
                received.append((await subscription.areceive()).payload)
            assert received == [str(number) for number in range(20)]

    began = elapsed()
    # It waits for the threads of the loop's executor.
    asyncio.run(run())
    assert elapsed() - began < 20
    assert not [thread for thread in threading.enumerate() if thread.name == "forge-realtime-subscription"]


def test_missing_event_is_explained(api: Api, channel: str) -> None:
    async def run() -> None:
        async with api.emulator.subscribe(channel) as subscription:
            with pytest.raises(TimeoutError, match=r"within 0\.1 s\.\nSince the subscription began, nothing was"):
                await subscription.areceive(timeout=0.1)
            with pytest.raises(TimeoutError, match=r"within 0 s\."):
                await subscription.areceive(timeout=0)

    asyncio.run(run())


def test_wait_ends_with_the_subscription(own: Api, channel: str) -> None:
    async def run() -> None:
        async with own.emulator.subscribe(channel) as subscription:
            receiving = asyncio.create_task(subscription.areceive(timeout=60))
            await asyncio.sleep(0)
            await asyncio.to_thread(own.emulator.reset)
            with pytest.raises(SubscriptionClosed, match="was reset"):
                await receiving
            with pytest.raises(SubscriptionClosed, match="was reset"):
                await subscription.areceive()

    asyncio.run(run())


@pytest.mark.parametrize("wrap", [str, lambda token: SimpleNamespace(token=token)])
def test_token_is_given_as_text_or_as_what_the_client_returns(
    api: Api, channel: str, wrap: Callable[[str], Any]
) -> None:
    token = api.sign(channel, {"team": "red"})
    with api.emulator.subscribe(channel, token=wrap(token)) as subscription:
        api.publish(channel, token=token)
        assert subscription.receive().payload == "x"


def test_refused_subscription_is_an_error_on_entering(api: Api, channel: str) -> None:
    async def run() -> None:
        with pytest.raises(SubscriptionRefused, match="INVALID_TOKEN"):
            async with api.emulator.subscribe(channel, token="x"):
                pass

    asyncio.run(run())


@pytest.mark.parametrize("used", [lambda s: s.receive(), lambda s: asyncio.run(s.areceive())])
def test_subscription_that_is_not_open_says_what_to_do(emulator: Emulator, used: Callable[[object], object]) -> None:
    subscription = emulator.subscribe("x")
    with pytest.raises(EmulatorError, match="Use it within `with"):
        used(subscription)
    with subscription:
        pass
    with pytest.raises(EmulatorError, match="Use it within `with"):
        used(subscription)


def test_control_characters_are_escaped_in_explanations(own: Api) -> None:
    evil = "\x1b[2J\x9b\u202e\n"
    own.emulator.register(invocations={"a": {"installation": evil, "module": evil, "context": {"issue": evil}}})
    own.post("/forge/realtime/v1/publish", {"name": evil, "payload": "x", evil: 1, "options": {"token": {evil: 1}}})
    with own.emulator.subscribe(evil, invocation="a") as subscription:
        own.publish(evil)
        own.publish(evil, contextOverrides=[evil])
        own.publish(evil, authorization="Forge id=a", contextOverrides=["issue"])
        with pytest.raises(TimeoutError) as missing:
            subscription.receive(timeout=0.01)
    own.emulator.stop()
    lines = str(missing.value).split("\n")
    assert len(lines) > 3
    assert all(line.isprintable() for line in lines)
    assert all(miss.isprintable() for event in own.emulator.events for miss in event.near_misses)
