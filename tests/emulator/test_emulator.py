"""Python API of the emulator: start, stop and records."""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest
from websockets.sync.client import connect

import forge_realtime_emulator
from forge_realtime_emulator import Emulator, EmulatorError, Settings, SubscriptionClosed
from forge_realtime_emulator._platform.clock import Clock, elapsed
from forge_realtime_emulator._platform.tokens import derive_key
from forge_realtime_emulator._server.uvicorn_thread import UvicornThread
from tests.emulator.api import Api, failure


def test_emulator_serves_on_a_free_loopback_port_from_start_to_stop(
    api_of: Callable[[Emulator], Api], channel: str
) -> None:
    before = set(threading.enumerate())
    emulator = Emulator()
    emulator.start()
    url = emulator.url
    assert url.startswith("http://127.0.0.1:")
    assert api_of(emulator).publish(channel).status_code == 200
    emulator.stop()
    assert not set(threading.enumerate()) - before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))
    emulator.stop()


def test_two_emulators_are_independent(api: Api, own: Api, channel: str) -> None:
    assert api.emulator.url != own.emulator.url
    with api.emulator.subscribe(channel):
        assert own.publish(channel).json()["eventId"] is None


def test_taken_port_is_a_clear_error_and_leaves_no_thread(own: Api) -> None:
    before = set(threading.enumerate())
    port = int(own.emulator.url.rpartition(":")[2])
    with pytest.raises(EmulatorError, match=rf"127.0.0.1 port {port}: Address already in use.*port 0 takes a free one"):
        Emulator(port=port).start()
    assert not set(threading.enumerate()) - before


@pytest.mark.parametrize(("host", "port"), [("192.0.2.1", 0), ("127.0.0.1", 70000), ("no.such.host.invalid", 0)])
def test_unavailable_address_is_a_clear_error(host: str, port: int) -> None:
    with pytest.raises(EmulatorError, match="cannot listen on"):
        Emulator(host, port).start()


def test_restarted_emulator_keeps_port_and_records(api_of: Callable[[Emulator], Api], channel: str) -> None:
    emulator = Emulator(port=_free_port())
    api = api_of(emulator)
    for count in (1, 2):
        with emulator:
            assert api.publish(channel).status_code == 200
            assert len(emulator.requests) == count
    assert len(emulator.requests) == 2


def test_token_survives_a_restart_at_the_same_address(api_of: Callable[[Emulator], Api], channel: str) -> None:
    port = _free_port()
    with Emulator(port=port) as before:
        token = api_of(before).sign(channel, {"team": "red"})
    # Another process would be a new emulator just so.
    with Emulator(port=port) as after, after.subscribe(channel, token=token) as subscription:
        assert failure(api_of(after).publish(channel, token=token)) is None
        assert subscription.receive().payload == "x"
        after.reset()
        assert failure(api_of(after).publish(channel, token=token)) is None
    with Emulator(port=_free_port()) as elsewhere:
        invalid = "Realtime token validation failed: INVALID_TOKEN"
        assert failure(api_of(elsewhere).publish(channel, token=token)) == invalid


def test_key_depends_on_address_machine_and_user(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [derive_key("127.0.0.1", 7072), derive_key("127.0.0.1", 7073), derive_key("::1", 7072)]
    monkeypatch.setattr("platform.node", lambda: "another machine")
    keys.append(derive_key("127.0.0.1", 7072))
    monkeypatch.setenv("HOME", "/home/another")
    keys.append(derive_key("127.0.0.1", 7072))
    assert len(set(keys)) == 5
    assert derive_key("127.0.0.1", 7072) == keys[-1]


NOON = 1_800_000_000.0
HOURS = itertools.count()


@pytest.mark.parametrize("wall", [lambda: NOON, lambda: NOON - 3600 * next(HOURS)], ids=["frozen", "stepping back"])
def test_emulator_goes_on_while_a_test_replaces_the_clock(
    api_of: Callable[[Emulator], Api], channel: str, wall: Callable[[], float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", wall)
    # freezegun replaces this one too.
    monkeypatch.setattr(time, "monotonic", lambda: 5.0)
    began = elapsed()
    with Emulator(settings=Settings(limit=3, token_lifetime=100)) as emulator:
        api = api_of(emulator)
        token = api.sign(channel)
        with emulator.subscribe(channel, token=token) as subscription:
            assert failure(api.publish(channel, token=token)) is None
            assert subscription.receive().payload == "x"
            assert failure(api.publish(channel, token=token)) == "RATE_LIMIT_EXCEEDED"
            # The window passes without advance().
            while failure(api.publish(channel, token=token)) is not None:
                assert elapsed() < began + 20
            assert subscription.receive().payload == "x"
            emulator.advance(101)
            expired = "Realtime token validation failed: TOKEN_EXPIRED"
            assert failure(api.publish(channel, token=token)) == expired
            first, *_, last = (call.at for call in emulator.requests)
            assert 101 < last - first < 121
            with pytest.raises(TimeoutError):
                subscription.receive(timeout=0.01)
        emulator.fail_next(delay=0.05)
        assert failure(api.publish(channel)) is None
        stopping = elapsed()
    assert elapsed() < stopping + 3


def test_clock_starts_at_the_wall_clock_and_is_monotonic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: NOON)
    clock = Clock()
    monkeypatch.setattr(time, "time", lambda: NOON - 3600)
    readings = [clock.now() for _ in range(100)]
    clock.advance(10)
    readings.append(clock.now())
    assert readings == sorted(readings)
    assert NOON <= readings[0] < NOON + 60
    assert NOON + 10 <= readings[-1] < NOON + 70


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def test_methods_that_need_it_running_say_so() -> None:
    emulator = Emulator()
    assert repr(emulator) == "<Emulator stopped>"
    with pytest.raises(EmulatorError, match="Use it in a with statement"):
        _ = emulator.url
    with pytest.raises(EmulatorError, match="Use it in a with statement"):
        emulator.subscribe("x")
    with emulator, pytest.raises(EmulatorError, match="already runs at http"):
        emulator.start()


def test_ipv6_and_wildcard_addresses_have_usable_urls(api_of: Callable[[Emulator], Api], channel: str) -> None:
    for host, start in [("::1", "http://[::1]:"), ("0.0.0.0", "http://127.0.0.1:")]:
        with Emulator(host) as emulator:
            assert emulator.url.startswith(start)
            with emulator.subscribe(channel) as subscription:
                api_of(emulator).publish(channel, "x")
                assert subscription.receive().payload == "x"


def test_negative_token_lifetime_is_refused() -> None:
    with pytest.raises(ValueError, match="token_lifetime must be a whole number of at least 0"):
        Settings(token_lifetime=-1)


def test_stop_closes_subscribers_promptly(channel: str) -> None:
    with Emulator() as emulator, emulator.subscribe(channel) as subscription:
        began = time.monotonic()
        emulator.stop()
        with pytest.raises(SubscriptionClosed) as closed:
            subscription.receive()
        assert time.monotonic() - began < 2
    assert (closed.value.code, closed.value.reason) == (1001, "The emulator stopped.")


def test_stop_does_not_wait_for_silent_clients(own: Api, channel: str, caplog: pytest.LogCaptureFixture) -> None:
    port = int(own.emulator.url.rpartition(":")[2])
    address = f"ws://127.0.0.1:{port}/_emulator/subscribe"
    with (
        caplog.at_level(logging.WARNING),
        socket.create_connection(("127.0.0.1", port)),
        socket.create_connection(("127.0.0.1", port)) as half,
        connect(address, proxy=None, compression=None, max_size=None, max_queue=1) as unread,
    ):
        half.sendall(b"POST /forge/realtime/v1/publish HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
        unread.send(json.dumps({"channel": channel}))
        unread.recv()
        for _ in range(30):
            own.publish(channel, "x" * 900_000)
        began = time.monotonic()
        own.emulator.stop()
        assert time.monotonic() - began < 2
        unread.close_timeout = 0
    assert f"forge-realtime-emulator-{port}" not in [thread.name for thread in threading.enumerate()]
    assert "Traceback" not in caplog.text


def test_calls_are_recorded_in_order_whatever_their_outcome(own: Api, channel: str) -> None:
    own.publish(channel, "one", authorization="Forge as=user,accountId=a-1,id=inv-1")
    own.post("/forge/realtime/v1/publish", {"name": channel}, headers={"X-Trace": "t-1"})
    own.post("/forge/realtime/v1/token", {}, None)
    own.sign(channel)
    first, second, third, fourth = own.emulator.requests
    assert [call.operation for call in own.emulator.requests] == [
        "publish",
        "publish",
        "sign_realtime_token",
        "sign_realtime_token",
    ]
    assert [call.status for call in own.emulator.requests] == [200, 400, 401, 200]
    assert first.authorization is not None
    assert (first.authorization.acts_as, first.authorization.account_id) == ("user", "a-1")
    assert (first.authorization.invocation_id, first.authorization.installation_id) == ("inv-1", None)
    assert first.body == {"name": channel, "payload": "one", "options": {}}
    assert second.headers["x-trace"] == "t-1"
    assert (third.authorization, third.body) == (None, None)
    assert fourth.body == {"channelName": channel, "claims": {}}
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.status = 500  # type: ignore[misc] # pyright: ignore[reportAttributeAccessIssue]


def test_call_is_recorded_before_its_response_arrives(own: Api, channel: str) -> None:
    for count in range(1, 51):
        own.publish(channel)
        assert len(own.emulator.requests) == len(own.emulator.events) == count


def test_accepted_events_are_recorded(own: Api, channel: str) -> None:
    own.publish(channel, "nobody")
    with own.emulator.subscribe(channel, is_global=True):
        response = own.publish_global(channel, "somebody").json()
    first, second = own.emulator.events
    assert (first.channel, first.payload, first.is_global) == (channel, "nobody", False)
    assert (first.event_id, first.event_timestamp, first.delivered) == (None, None, 0)
    assert (second.payload, second.is_global, second.delivered) == ("somebody", True, 1)
    assert (second.event_id, second.event_timestamp) == (response["eventId"], response["eventTimestamp"])


def test_logs_and_reprs_show_no_secret(
    api_of: Callable[[Emulator], Api], channel: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with Emulator() as emulator:
        api = api_of(emulator)
        header = "Forge as=user,accountId=secret-account,id=inv-1"
        token = api.sign(channel, {"team": "secret-claim"})
        with emulator.subscribe(channel, token=token) as subscription:
            body = {"name": channel, "payload": "secret-payload", "options": {"token": token}}
            assert api.post("/forge/realtime/v1/publish", body, header).status_code == 200
            event = subscription.receive()
        api.post("/forge/realtime/v1/publish", {"payload": "secret-payload"}, header + ",secret-key=x")
        shown = f"{emulator!r} {emulator.requests!r} {emulator.events!r} {event!r} {subscription!r} {caplog.text}"
    assert event.payload == "secret-payload"
    assert emulator.requests[1].body == body
    assert "publish" in caplog.text
    assert "secret" not in shown
    assert token not in shown


def test_timeout_says_where_to_look(api: Api, channel: str) -> None:
    with api.emulator.subscribe(channel) as subscription, pytest.raises(TimeoutError) as timeout:
        subscription.receive(timeout=0.01)
    assert f"No event on channel '{channel}' within 0.01 s" in str(timeout.value)
    assert "nothing was published" in str(timeout.value)


def test_records_and_faults_are_thread_safe(own: Api, channel: str) -> None:
    def work() -> None:
        for _ in range(20):
            own.emulator.fail_next(status=503)
            own.publish(channel)
            assert own.emulator.requests

    threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [call.status for call in own.emulator.requests] == [503] * 80


def test_change_waits_for_the_end_of_a_stop(own: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the server stops, its thread still works on the same state."""
    stopping, go_on = threading.Event(), threading.Event()
    stop = UvicornThread.stop

    def stop_late(server: UvicornThread) -> None:
        stopping.set()
        assert go_on.wait(30)
        stop(server)

    monkeypatch.setattr(UvicornThread, "stop", stop_late)
    ends, changes = threading.Thread(target=own.emulator.stop), threading.Thread(target=own.emulator.reset)
    ends.start()
    assert stopping.wait(30)
    changes.start()
    changes.join(0.1)
    assert changes.is_alive()
    go_on.set()
    for thread in (ends, changes):
        thread.join(30)
        assert not thread.is_alive()


def test_exported_names_exist_and_are_documented() -> None:
    for name in forge_realtime_emulator.__all__:
        assert getattr(forge_realtime_emulator, name).__doc__
        assert name in dir(forge_realtime_emulator)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = forge_realtime_emulator.nonsense


def test_import_is_light() -> None:
    code = "import sys, forge_realtime_emulator; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"starlette", "uvicorn", "websockets", "click", "jwt", "forge_realtime"} & set(modules)


def test_emulator_does_not_import_the_client() -> None:
    code = "import sys, forge_realtime_emulator._cli.group; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "forge_realtime_emulator" in modules
    assert "forge_realtime" not in modules
