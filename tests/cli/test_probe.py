"""`probe` recovers the emulator's settings, keeps its limits and shows no ids; the emulator reads its result."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields, replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import settings as example_settings
from hypothesis import strategies as st

from forge_realtime._cli import probe as _probe
from forge_realtime._cli.probe import OBSERVATIONS, UNSEEN, Observation, Probe
from forge_realtime_emulator import Emulator, Settings
from forge_realtime_emulator._platform.clock import Clock
from tests.cli.conftest import Run
from tests.emulator.test_cli import emulate, exported
from tests.support.fault_server import (
    Behaviour,
    Connection,
    FaultServer,
    answer,
    close_after,
    http,
    refused_url,
)

BOOLEANS = [
    "token_by_installation",
    "overrides_in_order",
    "empty_overrides_are_global",
    "errors_in_200",
    "keep_unheard",
]
OBSERVABLE = {*BOOLEANS, "token_lifetime", "limit_retry_after"}
ALWAYS = [observation for observation in OBSERVATIONS if observation.option is None]
[PAYLOAD_SIZE] = [observation for observation in OBSERVATIONS if observation.option == "--payload-size"]
[RATE_LIMIT] = [observation for observation in OBSERVATIONS if observation.option == "--rate-limit"]


@contextmanager
def controlled_time(emulator: Emulator) -> Iterator[list[float]]:
    """Let time pass only where the probe waits, in probe and emulator alike; provide its waits."""
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        emulator.advance(seconds)

    def now() -> float:
        return emulator._sidecar.clock.now()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Clock, "now", lambda clock: 1_800_000_000.0 + clock.ahead)
        patch.setattr(_probe, "time", SimpleNamespace(sleep=sleep, time=now, monotonic=now))
        emulator.reset()
        yield waits


def probed(url: str, observations: list[Observation], page: str | None = None) -> dict[str, Any]:
    return Probe(url, "secret-invocation", page).run(observations, lambda _: None)


def named(findings: list[dict[str, Any]], name: str) -> dict[str, Any]:
    [finding] = [finding for finding in findings if finding.get("name") == name]
    return finding


@pytest.fixture
def waits(own: Emulator) -> Iterator[list[float]]:
    with controlled_time(own) as waits:
        yield waits


@pytest.fixture
def platform(own: Emulator) -> Iterator[FaultServer]:
    """Forward to the emulator without its own endpoints, as the platform has none."""
    with httpx.Client(trust_env=False, base_url=own.url) as client:

        def behave(connection: Connection) -> bool:
            request = connection.read()
            if request.path.startswith("/_emulator/"):
                connection.send(http(404))
                return True
            headers = {n: v for n, v in request.headers.items() if n in ("content-type", "forge-proxy-authorization")}
            response = client.request(request.method, request.path, content=request.body, headers=headers)
            connection.send(http(response.status_code, response.content, {"Content-Type": "application/json"}))
            return True

        with FaultServer(then=behave) as server:
            yield server


# In half of all combinations, each four settings have each of their values together.
HALF = [values for values in product([False, True], repeat=len(BOOLEANS)) if sum(values) % 2 == 0]


@pytest.mark.parametrize("values", HALF, ids=str)
def test_settings_of_emulator_are_recovered(own: Emulator, values: tuple[bool, ...]) -> None:
    @given(lifetime=st.integers(0, 10**8), retry_after=st.none() | st.integers(0, 10**4))
    @example_settings(max_examples=2, deadline=None, database=None)
    def recover(lifetime: int, retry_after: int | None) -> None:
        settings = dict[str, Any](zip(BOOLEANS, values, strict=True))
        settings |= {"token_lifetime": lifetime, "limit_retry_after": retry_after}
        with controlled_time(own):
            own.change(**settings)
            found = probed(own.url, [*ALWAYS, RATE_LIMIT])
        assert found["settings"] == settings
        # Documented: what is refused after the token's check counts.
        assert named(found["answers"], "rate limit")["answer"].endswith("of the refused ones counted by installation")
        assert [finding["question"] for finding in found["open"]] == [*UNSEEN]

    recover()


def test_every_unknown_setting_is_recovered_or_said_to_be_open() -> None:
    not_unknown = {"limit", "strict"}
    unseen = {"invocation_lifetime", "replay_retention", "cold_start_after", "cold_start_duration"}
    assert {setting.name for setting in fields(Settings)} - not_unknown - unseen == OBSERVABLE


def test_calls_are_as_many_as_dry_run_says(platform: FaultServer, waits: list[float]) -> None:
    ids = ALWAYS[0]
    for observation in (*ALWAYS[1:], PAYLOAD_SIZE, RATE_LIMIT):
        platform.received.clear()
        found = probed(platform.url, [ids, observation])
        assert found["operations"] == len(platform.received)
        expected = 0 if "subscribe" in observation.calls else observation.operations
        # This one has found the size before the last call.
        expected -= observation is PAYLOAD_SIZE
        assert found["operations"] == 1 + ids.operations + expected, observation.name


def test_calls_are_counted_on_emulator(own: Emulator, waits: list[float]) -> None:
    assert probed(own.url, [*ALWAYS, RATE_LIMIT])["operations"] == 1 + sum(
        observation.operations for observation in (*ALWAYS, RATE_LIMIT)
    )


def test_pace_is_tenth_of_limit_except_in_burst(own: Emulator, waits: list[float]) -> None:
    probed(own.url, ALWAYS)
    assert set(waits) == {0.2}
    waits.clear()
    probed(own.url, [ALWAYS[0], RATE_LIMIT])
    assert waits == [0.2] * 6 + [1.5] + [0] * 61


@pytest.mark.parametrize(("bound", "value", "made"), [("MOST_OPERATIONS", 10, 10), ("DEADLINE", 1.9, 10)])
def test_rest_stays_open_at_limit_of_operations_or_time(
    own: Emulator, waits: list[float], monkeypatch: pytest.MonkeyPatch, bound: str, value: float, made: int
) -> None:
    monkeypatch.setattr(_probe, bound, value)
    found = probed(own.url, ALWAYS)
    assert found["operations"] == len(waits) == made
    assert [finding["name"] for finding in found["answers"]] == ["ids", "token", "token by installation"]
    assert {finding["name"] for finding in found["open"][:-5] if "Not reached within" in finding["open"]} == {
        observation.name for observation in ALWAYS[3:]
    }


def test_events_are_probes_own(own: Emulator, waits: list[float]) -> None:
    probed(own.url, [*ALWAYS, RATE_LIMIT])
    assert {event.channel.startswith("forge-realtime-probe-") for event in own.events} == {True}
    assert {event.payload for event in own.events} == {"forge-realtime probe", "unheard", "heard", "end"}


def test_without_page_subscriptions_stay_open(platform: FaultServer, waits: list[float]) -> None:
    found = probed(platform.url, ALWAYS)
    assert found["sidecar"] == "the platform"
    assert set(found["settings"]) == {"token_lifetime", "token_by_installation", "errors_in_200"}
    assert [finding["name"] for finding in found["open"][:-5]] == ["order of overrides", "empty overrides", "replay"]
    assert "--page" in named(found["open"], "order of overrides")["open"]
    found = probed(platform.url, ALWAYS, "nobody-there")
    assert "No page is subscribed" in named(found["open"], "order of overrides")["open"]
    assert "No page is subscribed" in named(found["open"], "empty overrides")["open"]


@pytest.mark.parametrize("value", [False, True])
def test_open_page_settles_overrides(platform: FaultServer, own: Emulator, waits: list[float], value: bool) -> None:
    expected = {"overrides_in_order": value, "empty_overrides_are_global": value}
    own.change(**expected)
    with own.subscribe("page", context_overrides=["issue", "project"]), own.subscribe("page", is_global=True):
        found = probed(platform.url, ALWAYS, "page")
    assert expected.items() <= found["settings"].items()


def test_overrides_are_those_of_product(own: Emulator, waits: list[float]) -> None:
    for module, overrides in [("confluence:macro", "content"), ("bitbucket:x", "pullRequest"), ("jira:x", "issue")]:
        own.register(default={"moduleType": module})
        assert probed(own.url, ALWAYS)["settings"]["overrides_in_order"] is False
        assert overrides in json.dumps([request.body for request in own.requests[-25:]])


def test_payload_size_is_found(own: Emulator, waits: list[float]) -> None:
    found = probed(own.url, [PAYLOAD_SIZE])
    assert named(found["answers"], "payload size")["answer"] == "1023 KiB are accepted, 1024 KiB are not"


def test_limit_and_size_without_clear_bound_stay_open(own: Emulator, waits: list[float]) -> None:
    own.change(limit=None)
    found = probed(own.url, [ALWAYS[0], RATE_LIMIT])
    assert named(found["open"], "rate limit")["open"].startswith("61 operations in 0.0 s were not limited")
    with FaultServer(answer(404), then=close_after) as server:
        found = probed(server.url, [PAYLOAD_SIZE])
    assert named(found["open"], "payload size")["open"].startswith("No payload was accepted")
    assert found["settings"] == {}


@pytest.mark.parametrize(
    ("accepted", "counted"), [(50, "none"), (47, "by installation"), (44, "not a token"), (41, "both"), (30, "unclear")]
)
def test_refused_operations_that_count_are_told_apart(
    monkeypatch: pytest.MonkeyPatch, accepted: int, counted: str
) -> None:
    refused = {"eventId": None, "eventTimestamp": None, "errors": [{"message": "Unauthorized request"}]}
    limited = {"token": None, "expiresAt": None, "errors": [{"message": "RATE_LIMIT_EXCEEDED"}]}
    signed = [1] * accepted

    def behave(connection: Connection) -> bool:
        path = connection.read().path
        left = path.endswith("/token") and signed and signed.pop()
        body = {"token": "t", "expiresAt": 1} if left else limited if path.endswith("/token") else refused
        return reply(connection, 200, body)

    monkeypatch.setattr(_probe, "time", SimpleNamespace(sleep=lambda _: None, monotonic=lambda: 0.0))
    with FaultServer(then=behave) as server:
        probe = Probe(server.url, "i", None)
        probe.installation = "i"
        found = probe.run([RATE_LIMIT], lambda _: None)
    finding = named(found["answers"], "rate limit")
    assert finding["answer"].startswith("200, RATE_LIMIT_EXCEEDED, Retry-After None")
    assert finding["answer"].endswith(f"{accepted} were accepted in 0.0 s: of the refused ones counted {counted}")
    assert found["settings"] == {"limit_retry_after": None}


def reply(connection: Connection, status: int, body: Any) -> bool:
    connection.send(http(status, json.dumps(body).encode(), {"Content-Type": "application/json"}))
    return True


@pytest.mark.parametrize(
    "behaviour",
    [
        answer(200, b"<html>"),
        answer(200, []),
        answer(429, {"code": "RATE_LIMIT_EXCEEDED"}),
        answer(200, {"errors": [{"message": "RATE_LIMIT_EXCEEDED"}]}),
        answer(500, {}),
        answer(200, {"token": "no-jwt", "eventId": None}),
    ],
    ids=["no JSON", "no object", "429", "limited", "500", "accepted"],
)
def test_unclear_responses_settle_nothing(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, behaviour: Behaviour
) -> None:
    monkeypatch.setattr(_probe, "_INTERVAL", 0)
    with FaultServer(then=behaviour) as server:
        probe = Probe(server.url, "i", "page")
        probe.installation = "i"
        found = probe.run(ALWAYS, lambda _: None)
    assert found["settings"] == ({"token_by_installation": True} if "accepted" in request.node.name else {})


def test_evidence_shows_no_ids(monkeypatch: pytest.MonkeyPatch, own: Emulator, waits: list[float]) -> None:
    text = json.dumps(probed(own.url, [*ALWAYS, RATE_LIMIT]))
    assert "INVALID_TOKEN" in text
    for secret in ("secret-invocation", "default-installation", "eyJ"):
        assert secret not in text
    echo = answer(403, {"message": "refused for secret-invocation", "user": "secret-account"})
    monkeypatch.setattr(_probe, "_INTERVAL", 0)
    with FaultServer(then=echo) as server:
        text = json.dumps(probed(server.url, ALWAYS))
    assert "refused for ..." in text
    assert "secret" not in text


def test_dry_run_lists_calls_and_makes_none(run: Run, own: Emulator) -> None:
    result = run("probe", "--dry-run", "--rate-limit")
    assert result.exit_code == 0
    lines = result.stdout.partition("Open in any case:")[0].splitlines()
    assert sum(int(line[:3]) for line in lines) == 1 + sum(o.operations for o in (*ALWAYS, RATE_LIMIT)) <= 100
    assert own.requests == []


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--rate-limit", "--payload-size", "--dry-run"), 2, "run it once with each"),
        ((), 2, "Give --invocation ID"),
        (("--invocation", "a,b"), 2, "id cannot be sent in the header"),
        (("--invocation", "i", "--url", "nonsense"), 2, "--url must be an http:// or https:// address"),
        (("--invocation", "i", "--url", refused_url()), 1, "forge-realtime doctor"),
    ],
)
def test_error_says_what_to_do(run: Run, arguments: tuple[str, ...], code: int, said: str) -> None:
    result = run("probe", *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert said in " ".join(result.stderr.split())


def test_emulate_takes_result(run: Run, own: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_probe, "_INTERVAL", 0)
    own.change(errors_in_200=True, token_by_installation=False)
    printed = run("probe", "--invocation", "i")
    assert printed.stderr.splitlines()[2] == "token by installation: refused (200)"
    file = tmp_path / "platform.json"
    own.reset()
    own.change(errors_in_200=True, token_by_installation=False)
    assert run("probe", "--invocation", "i", "--output", str(file)).stdout == ""
    assert json.loads(file.read_text())["settings"] == json.loads(printed.stdout)["settings"]
    # The lifetime may be measured a second short.
    assert replace(Settings.from_file(file), token_lifetime=3600) == Settings(
        errors_in_200=True, token_by_installation=False
    )
    with emulate("--port", "0", "--config", str(file), "--limit", "2") as process, ExitStack() as stack:
        client = stack.enter_context(httpx.Client(trust_env=False, base_url=exported(process)))
        headers = {"forge-proxy-authorization": "Forge installationId=i"}
        token = {"channelName": "c", "claims": {}}
        refused = client.post("/forge/realtime/v1/token", json=token, headers=headers)
        assert (refused.status_code, bool(refused.json()["errors"])) == (200, True)
        event = {"name": "c", "payload": "p"}
        texts = [client.post("/forge/realtime/v1/publish/global", json=event, headers=headers).text for _ in range(3)]
        assert ("RATE_LIMIT_EXCEEDED" in texts[0], "RATE_LIMIT_EXCEEDED" in texts[2]) == (False, True)
