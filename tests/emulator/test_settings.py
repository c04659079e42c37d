"""Settings: defaults, allowed values and effects."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import pytest

from forge_realtime_emulator import Emulator, EmulatorError, Settings
from forge_realtime_emulator._platform import clock
from tests.emulator.api import Api, failure

TOKEN = "/forge/realtime/v1/token"
SIGN = {"channelName": "x", "claims": {}}


@pytest.fixture
def with_settings(api_of: Callable[[Emulator], Api]) -> Callable[..., Any]:
    @contextmanager
    def start(**settings: Any) -> Iterator[Api]:
        with Emulator(settings=Settings(**settings)) as emulator:
            yield api_of(emulator)

    return start


def test_defaults_are_as_documented() -> None:
    assert asdict(Settings()) == {
        "limit": 50,
        "limit_retry_after": None,
        "strict": False,
        "invocation_lifetime": None,
        "token_lifetime": 3600,
        "token_by_installation": True,
        "replay_retention": 300,
        "keep_unheard": False,
        "overrides_in_order": False,
        "empty_overrides_are_global": False,
        "errors_in_200": True,
        "cold_start_after": None,
        "cold_start_duration": 120,
    }


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"limit": 0}, "limit must be a whole number of at least 1 or None."),
        ({"limit": True}, "limit must be"),
        ({"limit_retry_after": -1}, "limit_retry_after must be a whole number of at least 0 or None."),
        ({"limit_retry_after": 0.5}, "limit_retry_after must be"),
        ({"invocation_lifetime": -1}, "invocation_lifetime must be a whole number of at least 0 or None."),
        ({"token_lifetime": None}, "token_lifetime must be a whole number of at least 0."),
        ({"replay_retention": "300"}, "replay_retention must be"),
        *[
            ({name: 1}, f"{name} must be True or False.")
            for name, value in asdict(Settings()).items()
            if isinstance(value, bool)
        ],
    ],
)
def test_value_out_of_range_is_refused(api: Api, settings: Any, problem: str) -> None:
    for use in (Settings, api.emulator.change):
        with pytest.raises(ValueError, match=re.escape(problem)):
            use(**settings)


def test_unknown_setting_is_refused(api: Api) -> None:
    with pytest.raises(TypeError, match="limits"):
        api.emulator.change(limits=1)


@pytest.mark.parametrize("form", ["{}", '{{"probed": "2026-11-28", "settings": {}}}'])
def test_file_has_every_setting(tmp_path: Path, form: str) -> None:
    every = {name: not value if isinstance(value, bool) else 7 for name, value in asdict(Settings()).items()}
    file = tmp_path / "settings.json"
    file.write_text(form.format(json.dumps(every)))
    assert asdict(Settings.from_file(file)) == every
    file.write_text(form.format('{"limit": null}'))
    assert Settings.from_file(str(file)) == Settings(limit=None)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read as JSON: [Errno 2]"),
        ("limit = 1", "cannot be read as JSON: Expecting value"),
        ("[]", 'must be a JSON object of settings, such as {"limit": 10}.'),
        ('{"settings": null}', "must be a JSON object of settings"),
        (
            '{"limits": 1, "strict": true}',
            "there is no setting limits. The settings are limit, limit_retry_after, ",
        ),
        ('{"settings": {"tokenLifetime": 1}}', "there is no setting tokenLifetime."),
        ('{"strict": 1}', "strict must be true or false."),
        ('{"limit": "10"}', "limit must be a whole number of at least 1 or null."),
        ('{"token_lifetime": 1.5}', "token_lifetime must be a whole number of at least 0."),
    ],
)
def test_error_of_a_file_names_the_setting(tmp_path: Path, content: str | None, said: str) -> None:
    file = tmp_path / "settings.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(EmulatorError, match=re.escape(f"{file}: {said}")):
        Settings.from_file(file)


def test_changes_last_until_reset(own: Api) -> None:
    own.emulator.change(token_by_installation=False)
    own.emulator.change(token_lifetime=5)
    assert failure(own.post(TOKEN, SIGN, "Forge installationId=i")) == "Unauthorized request"
    own.emulator.reset()
    assert failure(own.post(TOKEN, SIGN, "Forge installationId=i")) is None


def test_token_lifetime_follows_the_emulators_clock(with_settings: Callable[..., Any]) -> None:
    with with_settings(token_lifetime=100) as api:
        token = api.sign("x")
        api.emulator.advance(98)
        assert failure(api.publish("x", token=token)) is None
        with api.emulator.subscribe("x", token=token) as subscription:
            api.emulator.advance(3)
            for response in (api.publish("x", token=token), api.publish_global("x", token=token)):
                assert failure(response) == "Realtime token validation failed: TOKEN_EXPIRED"
            # The subscription continues.
            api.publish("x", "later", token=api.sign("x"))
            assert subscription.receive().payload == "later"


def test_token_by_installation(with_settings: Callable[..., Any]) -> None:
    for allowed, message in [(True, None), (False, "Unauthorized request")]:
        with with_settings(token_by_installation=allowed) as api:
            assert failure(api.post(TOKEN, SIGN, "Forge as=app,installationId=i")) == message
            assert failure(api.post(TOKEN, SIGN, "Forge as=app,id=inv-1")) is None


def test_overrides_in_order(with_settings: Callable[..., Any]) -> None:
    for in_order in (False, True):
        with (
            with_settings(overrides_in_order=in_order) as api,
            api.emulator.subscribe("x", context_overrides=["issue", "project"]),
        ):
            response = api.publish("x", contextOverrides=["project", "issue"]).json()
            assert (response["eventId"] is None) is in_order
            assert api.publish("x", contextOverrides=["issue", "project"]).json()["eventId"]


def test_empty_overrides_are_global(with_settings: Callable[..., Any]) -> None:
    for are_global in (False, True):
        with with_settings(empty_overrides_are_global=are_global) as api:
            with api.emulator.subscribe("x", is_global=True):
                assert (api.publish("x", contextOverrides=[]).json()["eventId"] is not None) is are_global
            with api.emulator.subscribe("x", context_overrides=[]):
                assert (api.publish_global("x").json()["eventId"] is not None) is are_global
                assert api.publish("x", contextOverrides=[]).json()["eventId"] is not None


def test_errors_in_200(with_settings: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(api: Api) -> list[httpx.Response]:
        return [
            api.publish("x", token="x"),
            api.publish("x", contextOverrides=["site"]),
            api.publish("x", authorization="Forge installationId=i"),
            api.publish("x"),
            api.publish_global("x"),
            api.post(TOKEN, SIGN),
        ]

    limited = "RATE_LIMIT_EXCEEDED"
    messages = ["Realtime token validation failed: INVALID_TOKEN", "Error publishing event to channel"]
    messages += ["Unauthorized request", limited, limited, limited]
    codes = ["INVALID_TOKEN", "PUBLISH_FAILED", "UNAUTHORIZED", limited, limited, limited]
    bodies = []
    for in_200, statuses in [(True, [200] * 6), (False, [400] * 3 + [429] * 3)]:
        with with_settings(errors_in_200=in_200, limit=2) as api:
            # The calls are within one second, however busy the machine is.
            now = clock.elapsed()
            with monkeypatch.context() as patch:
                patch.setattr(clock, "_elapsed", lambda now=now: now)
                responses = fail(api)
            assert [response.status_code for response in responses] == statuses
            bodies.append([response.json() for response in responses])
            assert [[error["message"] for error in body["errors"]] for body in bodies[-1]] == [
                [text] for text in messages
            ]
            assert [(call.status, call.code) for call in api.emulator.requests] == [*zip(statuses, codes, strict=True)]
            # Other refusals keep their status and form.
            for response, status, code in [
                (api.publish("x", authorization="Forge"), 401, "UNAUTHORIZED"),
                (api.post("/forge/realtime/v1/publish", {}), 400, "INVALID_REQUEST"),
            ]:
                assert (response.status_code, response.json()["code"]) == (status, code)
                assert set(response.json()) == {"code", "message"}
    assert bodies[0] == bodies[1]


def test_keep_unheard(with_settings: Callable[..., Any]) -> None:
    for kept in (False, True):
        with with_settings(keep_unheard=kept) as api:
            api.publish("x", "unheard")
            with api.emulator.subscribe("x", replay_seconds=60) as subscription:
                api.publish("x", "heard")
                payloads = [subscription.receive().payload for _ in range(1 + kept)]
            assert payloads == ["unheard", "heard"][1 - kept :]


def test_invocation_lifetime_begins_with_the_first_call(with_settings: Callable[..., Any], channel: str) -> None:
    with with_settings(invocation_lifetime=60) as api:
        for _ in range(2):
            assert api.publish(channel).status_code == 200
            api.emulator.advance(30)
        response = api.publish(channel)
        assert (response.status_code, response.json()["code"]) == (401, "UNAUTHORIZED")
        assert "invocation_lifetime" in response.json()["message"]
        assert api.publish(channel, authorization="Forge id=inv-2").status_code == 200
        assert api.publish_global(channel, authorization="Forge installationId=inst-1").status_code == 200
        # A page can still subscribe.
        with api.emulator.subscribe(channel, invocation="inv-1"):
            pass
        api.emulator.reset()
        assert api.publish(channel).status_code == 200
