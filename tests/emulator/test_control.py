"""Control endpoints for the console and other processes."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from forge_realtime_emulator import Emulator, Settings, SubscriptionRefused
from forge_realtime_emulator._platform.settings import READINGS
from tests.emulator.api import Api, failure


def state(api: Api) -> Any:
    response = api.get("/_emulator/state")
    assert response.status_code == 200
    return response.json()


def feed(response: httpx.Response) -> Iterator[Any]:
    return (json.loads(line.removeprefix("data: ")) for line in response.iter_lines() if line)


def watch(api: Api) -> Any:
    return api.get_stream("/_emulator/feed")


def test_state_shows_everything_but_calls_and_events(own: Api) -> None:
    own.emulator.register(invocations={"a": {"installation": "i-a", "context": {"issue": "1"}}})
    token = own.sign("x", {"team": "red"})
    own.emulator.fail_next(3, status=503, channel="y")
    with (
        own.emulator.subscribe("x", invocation="a", token=token),
        own.emulator.subscribe("x", invocation="a", token=token),
        own.emulator.subscribe("g", is_global=True),
    ):
        now = state(own)
    assert now["kind"] == "state"
    assert now["settings"]["limit"] == 50
    assert now["operations"] == ["publish", "publish_global", "sign_realtime_token"]
    assert now["faults"] == [{"times": 3, "status": 503, "channel": "y"}]
    assert now["contexts"]["invocations"]["a"]["context"] == {"issue": "1"}
    assert now["contexts"]["installations"] == ["i-a"]
    assert sorted(now["channels"], key=lambda channel: channel["channel"]) == [
        {
            "installation": "default-installation",
            "channel": "g",
            "isGlobal": True,
            "scope": "",
            "claims": None,
            "subscribers": 1,
        },
        {
            "installation": "i-a",
            "channel": "x",
            "isGlobal": False,
            "scope": 'module default-module issue="1"',
            "claims": {"team": "red"},
            "subscribers": 2,
        },
    ]
    own.emulator.advance(1)
    assert state(own)["rates"] == {"default-installation": 0, "i-a": 0}


def test_contexts_are_registered_in_the_form_shown(own: Api) -> None:
    invocation = {
        "installation": "i-a",
        "module": "panel",
        "moduleType": "jira:issuePanel",
        "context": {"issue": "1"},
        "account": "user-123",
        "fromUi": False,
    }
    given = {"invocations": {"a": invocation}, "installations": ["i-a", "i-b"], "default": invocation}
    assert own.post("/_emulator/contexts", given).json() == {}
    shown = state(own)["contexts"]
    assert shown == given
    own.emulator.reset()
    assert own.post("/_emulator/contexts", shown).status_code == 200
    assert state(own)["contexts"] == shown


def test_clock_stays_within_dates_that_can_be_written(own: Api) -> None:
    assert own.post("/_emulator/clock", {"advance": 9e9}).status_code == 200
    response = own.post("/_emulator/clock", {"advance": 9e9})
    assert (response.status_code, response.json()["message"]) == (
        400,
        "Invalid request: the clock cannot be more than 300 years ahead. Reset the emulator.",
    )


def test_clock_is_advanced(own: Api) -> None:
    before = state(own)["now"]
    token = own.sign("x")
    assert own.post("/_emulator/clock", {"advance": 3601.5}).status_code == 200
    assert 3601 < state(own)["now"] - before < 3700
    assert failure(own.publish("x", token=token)) == "Realtime token validation failed: TOKEN_EXPIRED"
    own.emulator.reset()
    assert state(own)["now"] - before < 3600


@pytest.mark.parametrize("seconds", [-1, "1", None, True, 1e10, [1]])
def test_clock_takes_only_seconds(own: Api, seconds: Any) -> None:
    before = state(own)["now"]
    response = own.post("/_emulator/clock", {"advance": seconds})
    assert response.status_code == 400
    assert response.json()["message"] == ("Invalid request: the clock is advanced by a number of seconds, 0 or more.")
    with pytest.raises(ValueError, match="a number of seconds"):
        own.emulator.advance(seconds)
    assert state(own)["now"] - before < 60


def test_settings_are_changed(own: Api) -> None:
    assert own.post("/_emulator/settings", {"limit": 1}).status_code == 200
    assert [failure(own.publish("x")) for _ in range(2)] == [None, "RATE_LIMIT_EXCEEDED"]
    assert own.post("/_emulator/settings", {"limit": None, "keep_unheard": True}).status_code == 200
    assert state(own)["settings"] == dataclasses.asdict(Settings(limit=None, keep_unheard=True))
    assert own.publish("x").status_code == 200
    for body, problem in [
        ({"limit": 0}, "limit: must be at least 1"),
        ({"limit": 5.0}, "limit: must be of type integer"),
        ({"strict": None}, "strict: must be of type boolean"),
        ({"token_lifetime": None}, "token_lifetime: must be of type integer"),
        ({"nothing": 1}, "has an unknown key 'nothing'; allowed are limit, limit_retry_after, strict,"),
        ([], "must be of type object"),
    ]:
        response = own.post("/_emulator/settings", body)
        assert response.status_code == 400
        assert problem in response.json()["message"]
    assert state(own)["settings"] == dataclasses.asdict(Settings(limit=None, keep_unheard=True))


def test_every_setting_can_be_changed_over_http(own: Api) -> None:
    changed = {name: value for reading in READINGS for name, value in reading.items()}
    changed |= {"limit": 7, "strict": True}
    assert changed.keys() == {setting.name for setting in dataclasses.fields(Settings)}
    assert own.post("/_emulator/settings", changed).status_code == 200
    assert own.emulator._sidecar.settings == Settings(**changed)


@pytest.mark.parametrize("body", [{}, [], "advance", {"nothing": 1}, {"advance": 1, "limit": 1}, None])
def test_body_of_another_form_is_refused(own: Api, body: Any) -> None:
    response = own.post("/_emulator/clock", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    assert response.json()["message"] == 'Invalid request: expected {"advance": …}.'


@pytest.mark.parametrize(
    "path", [f"/_emulator/{name}" for name in ("faults", "contexts", "clock", "settings", "publish")]
)
@pytest.mark.parametrize(
    ("content", "status"), [(b"{", 400), (b"\xff", 400), (b'{"advance": 1e999}', 400), (b"x" * 2_000_000, 413)]
)
def test_body_that_is_not_json_or_too_large_is_refused(api: Api, path: str, content: bytes, status: int) -> None:
    response = api.post(path, content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == status


def test_publish_endpoint_publishes_as_a_front_end(own: Api) -> None:
    own.emulator.register(invocations={"a": {"installation": "i-a", "context": {"issue": "1"}}})
    token = own.sign("x", {"team": "red"})
    options = {"token": token, "contextOverrides": ["issue"]}
    with own.emulator.subscribe("x", invocation="a", token=token, context_overrides=["issue"]) as subscription:
        page = {"channel": "x", "payload": "from a page", "invocation": "a", "options": options}
        response = own.post("/_emulator/publish", page)
        event = subscription.receive()
        assert (event.payload, {"eventId": event.event_id, "eventTimestamp": event.event_timestamp}) == (
            "from a page",
            response.json(),
        )
        own.publish("x", "from the container", authorization="Forge id=a", **options)
        assert subscription.receive().payload == "from the container"
    with own.emulator.subscribe("x", is_global=True) as subscription:
        own.post("/_emulator/publish", {"channel": "x", "payload": "global", "isGlobal": True})
        assert subscription.receive().payload == "global"
    nobody = own.post("/_emulator/publish", {"channel": "x", "payload": "nobody"}).json()
    assert nobody == {"eventId": None, "eventTimestamp": None}
    assert [event.payload for event in own.emulator.events] == [
        "from a page",
        "from the container",
        "global",
        "nobody",
    ]
    # They are not calls of the container.
    assert [call.operation for call in own.emulator.requests] == ["sign_realtime_token", "publish"]


@pytest.mark.parametrize(
    ("page", "code", "problem"),
    [
        ({"channel": "x"}, "INVALID_REQUEST", "missing payload"),
        ({"channel": "x", "payload": {}}, "INVALID_REQUEST", "payload: must be of type string"),
        ({"channel": "x", "payload": "", "name": "x"}, "INVALID_REQUEST", "has an unknown key"),
        ({"channel": "x", "payload": "", "options": {"token": "x"}}, "INVALID_TOKEN", "INVALID_TOKEN"),
        (
            {"channel": "x", "payload": "", "options": {"contextOverrides": ["site"]}},
            "PUBLISH_FAILED",
            "Error publishing event to channel",
        ),
    ],
)
def test_wrong_publication_is_refused(own: Api, page: Any, code: str, problem: str) -> None:
    response = own.post("/_emulator/publish", page)
    assert (response.status_code, response.json()["code"]) == (400, code)
    assert problem in response.json()["message"]
    assert own.emulator.events == []


def test_reset_restores_settings_and_contexts_of_the_start(api_of: Callable[[Emulator], Api]) -> None:
    start = Settings(limit=7)
    with Emulator(settings=start, contexts={"installations": ["i-a"]}) as emulator:
        api = api_of(emulator)
        before = state(api)
        emulator.register(invocations={"a": {}}, default={"installation": "mine"})
        emulator.change(limit=None, strict=True)
        emulator.advance(5000)
        emulator.fail_next(2, status=503, channel="y")
        api.publish("x", authorization="Forge id=a")
        with emulator.subscribe("x") as subscription:
            assert api.post("/_emulator/reset").status_code == 200
            with pytest.raises(Exception, match="The emulator was reset"):
                subscription.receive()
        after = state(api)
        assert (emulator.requests, emulator.events) == ([], [])
        assert 0 <= after.pop("now") - before.pop("now") < 60
        assert after == before


def test_feed_begins_with_the_past_and_continues_live(own: Api) -> None:
    own.publish("x", "past")
    with watch(own) as response:
        assert response.headers["content-type"].partition(";")[0] == "text/event-stream"
        stream = feed(response)
        assert [next(stream)["kind"] for _ in range(4)] == ["start", "event", "request", "state"]
        own.publish("x", "live", authorization="Forge as=user,accountId=user-123,id=inv-1")
        event, request = (next(item for item in stream if item["kind"] == kind) for kind in ("event", "request"))
        own.emulator.fail_next(status=503)
        changed = next(item for item in stream if item["kind"] == "state" and item["faults"])
    assert (event["payload"], event["channel"], event["delivered"], event["eventId"]) == ("live", "x", 0, None)
    assert request["authorization"] == {
        "id": "inv-1",
        "installationId": None,
        "as": "user",
        "accountId": "user-123",
    }
    assert (request["operation"], request["status"], request["channel"], request["code"], request["fault"]) == (
        "publish",
        200,
        "x",
        None,
        False,
    )
    assert changed["faults"] == [{"times": 1, "status": 503}]


def test_feed_shows_each_record_once_and_at_most_100_past_ones(own: Api) -> None:
    own.emulator.change(limit=None)
    for number in range(120):
        own.publish("x", str(number))
    with watch(own) as response:
        stream = feed(response)
        past = []
        while (item := next(stream))["kind"] != "state":
            past.append(item)
    kinds = [item["kind"] for item in past]
    assert (kinds[0], kinds.count("request"), kinds.count("event"), len(kinds)) == ("start", 100, 100, 201)
    payloads = [item["payload"] for item in past if item["kind"] == "event"]
    assert payloads == [str(number) for number in range(20, 120)]


def test_text_that_utf_8_cannot_encode_is_shown(own: Api) -> None:
    half = "\ud800"
    own.emulator.register(invocations={half: {"installation": half, "module": half}}, installations=[half])
    with own.emulator.subscribe(half):
        own.publish(half, half, token=own.sign(half, {half: half}))
        assert state(own)["channels"][0]["channel"] == half
    assert own.get("/v1/installations").json()["installations"][0]["id"] == half
    own.emulator.register(default={"account": half})
    assert own.get("/_emulator/context").json()["accountId"] == half
    with watch(own) as response:
        shown = [item for item, _ in zip(feed(response), range(4), strict=False)]
    assert half in [item.get("payload") for item in shown]


def test_numbers_out_of_range_are_refused(own: Api) -> None:
    content = b'{"channelName": "x", "claims": {"a": 1e999}}'
    response = own.post("/forge/realtime/v1/token", content=content, headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json()["message"]) == (400, "Invalid request: the body is not valid JSON.")


def test_unknown_endpoint_is_404_that_lists_the_endpoints(own: Api) -> None:
    for response, status in [(own.get("/_emulator/faults"), 405), (own.get("/_emulator/fault"), 404)]:
        assert response.status_code == status
        message = response.json()["message"]
        assert message.startswith("The emulator has no such endpoint. It has GET /_emulator/state, ")
        for endpoint in ("POST /_emulator/faults", "DELETE /_emulator/faults", "GET /_emulator/subscribe"):
            assert endpoint in message
    assert "It has POST /forge/realtime/v1/publish, " in own.get("/forge").json()["message"]


def test_refusals_of_pages_and_subscribers_are_logged(own: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "forge_realtime_emulator")
    own.post("/_emulator/publish", {"channel": "x", "payload": "", "options": {"token": "secret"}})
    own.get("/_emulator/subscribe?channel=x&token=secret")
    with pytest.raises(SubscriptionRefused):
        own.emulator.subscribe("x", token="secret").__enter__()
    own.get("/a%1B%5B2J")
    lines = [record.getMessage().split(maxsplit=2) for record in caplog.records]
    assert [line[:2] for line in lines] == [
        ["/_emulator/publish", "400"],
        ["/_emulator/subscribe", "400"],
        ["subscribe", "refused"],
        ["-", "404"],
    ]
    assert [line[2] for line in lines[:3]] == ["Realtime token validation failed: INVALID_TOKEN"] * 3
    assert lines[3][2] == "GET /a\\x1b[2J"
    assert "secret" not in caplog.text


def test_names_from_outside_cannot_control_a_terminal(own: Api, caplog: pytest.LogCaptureFixture) -> None:
    """Keys of JSON, names and paths reach messages and the log."""
    evil = "\x1b[2J\x9b\u202e\n"
    key = {evil: 1}
    with caplog.at_level(logging.INFO):
        responses = [
            own.post("/_emulator/contexts", {"invocations": {evil: {"installation": 1}}}),
            own.post("/_emulator/contexts", {"invocations": {"a": {"context": {evil: 1}}}}),
            own.post("/_emulator/faults", {"channel": key, "status": 500}),
            own.post("/_emulator/invoke", {"path": "/", "method": "GET", "headers": key}),
            own.post("/_emulator/invoke", {"path": f"/{evil}", "method": "GET"}),
            own.post("/_emulator/mocked", {"path": f"/{evil}", "method": evil}),
            own.post("/_emulator/publish", {"channel": evil, "payload": evil}),
            own.post("/_emulator/publish", {"channel": evil, "payload": evil, "options": {"token": evil}}),
            own.post("/forge/realtime/v1/publish", {"name": evil, "payload": evil}),
            own.post("/forge/realtime/v1/publish", {"name": key, "payload": evil}),
            own.post("/forge/realtime/v1/token", {"channelName": evil, "claims": {evil: evil}}),
            own.get(f"/{quote(evil)}"),
            own.get(f"/v1/installation/{quote(evil)}"),
            own.get(f"/jira/{quote(evil)}"),
            own.get(f"/_emulator/subscribe?channel=x&{quote(evil)}=x"),
            own.post("/_emulator/reset", headers={"Origin": "http://a\tb"}),
        ]
    for response in responses:
        message = response.json().get("message", "")
        assert message.isprintable(), message
    assert len(caplog.records) > len(responses) - 3
    assert all(record.getMessage().isprintable() for record in caplog.records)
