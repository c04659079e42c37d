"""Registered invocations and installations, and the scopes that follow from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forge_realtime_emulator import Emulator, EmulatorError, Settings, SubscriptionRefused
from forge_realtime_emulator._platform.contexts import OVERRIDES, Context, read_contexts
from forge_realtime_emulator._platform.document import load_document, read_document
from forge_realtime_emulator._platform.sidecar import Sidecar
from tests.emulator.api import Api, failure

PANEL = {"installation": "i-1", "module": "panel", "moduleType": "jira:issuePanel", "account": "user-123"}
REGISTRY: dict[str, dict[str, Any]] = {
    "issue-1": {**PANEL, "context": {"project": "DEMO", "issue": "DEMO-1"}},
    "issue-1-too": {**PANEL, "context": {"issue": "DEMO-1", "project": "DEMO"}, "account": "user-456"},
    "issue-2": {**PANEL, "context": {"project": "DEMO", "issue": "DEMO-2"}},
    "page": {**PANEL, "module": "page", "context": {"project": "DEMO", "issue": "DEMO-1"}},
    "elsewhere": {**PANEL, "installation": "i-2", "context": {"project": "DEMO", "issue": "DEMO-1"}},
    "timer": {**PANEL, "fromUi": False},
}


@pytest.fixture
def registered(own: Api) -> Api:
    own.emulator.register(invocations=REGISTRY)
    return own


def reaches(api: Api, publisher: str, subscriber: str, overrides: list[str] | None = None) -> bool:
    options: dict[str, Any] = {} if overrides is None else {"contextOverrides": overrides}
    with api.emulator.subscribe("x", invocation=subscriber, context_overrides=overrides):
        response = api.publish("x", authorization=f"Forge as=app,id={publisher}", **options)
    assert response.status_code == 200, response.text
    return response.json()["eventId"] is not None


@pytest.mark.parametrize(
    ("subscriber", "same"),
    [("issue-1", True), ("issue-1-too", True), ("issue-2", False), ("page", False), ("elsewhere", False)],
)
def test_default_scope_is_installation_module_and_product_context(registered: Api, subscriber: str, same: bool) -> None:
    assert reaches(registered, "issue-1", subscriber) is same


@pytest.mark.parametrize(
    ("overrides", "subscriber", "same"),
    [
        (["issue"], "issue-1-too", True),
        (["issue"], "page", True),
        (["issue"], "issue-2", False),
        (["project"], "issue-2", True),
        (["project", "issue"], "issue-2", False),
        (["project"], "elsewhere", False),
        ([], "issue-2", True),
        ([], "elsewhere", False),
        (["board"], "issue-2", True),
    ],
)
def test_overrides_replace_the_scope_and_compare_values(
    registered: Api, overrides: list[str], subscriber: str, same: bool
) -> None:
    assert reaches(registered, "issue-1", subscriber, overrides) is same


@pytest.mark.parametrize("name", ["Issue", "site", "", "\ud800"])
def test_unknown_override_is_refused_on_both_sides(registered: Api, name: str) -> None:
    response = registered.publish("x", contextOverrides=["issue", name])
    assert failure(response) == "Error publishing event to channel"
    assert response.json()["detail"] == (
        "options.contextOverrides: must be of board, issue, project, content, space, repository, pullRequest."
    )
    with pytest.raises(SubscriptionRefused, match="must be of board") as refused:
        registered.emulator.subscribe("x", context_overrides=[name]).__enter__()
    assert refused.value.code == "INVALID_REQUEST"


def test_global_events_stay_in_their_installation(registered: Api) -> None:
    with (
        registered.emulator.subscribe("x", is_global=True, invocation="elsewhere") as other,
        registered.emulator.subscribe("x", is_global=True, invocation="issue-2") as same,
    ):
        registered.publish_global("x", "by an invocation", authorization="Forge id=issue-1")
        registered.publish_global("x", "by an installation", authorization="Forge installationId=i-1")
        registered.publish_global("x", "of the other", authorization="Forge installationId=i-2")
        assert [same.receive().payload, same.receive().payload] == ["by an invocation", "by an installation"]
        assert other.receive().payload == "of the other"


def test_publish_needs_an_invocation_from_a_ui(registered: Api) -> None:
    for authorization in ("Forge id=timer", "Forge installationId=i-1"):
        response = registered.publish("x", authorization=authorization)
        assert failure(response) == "Unauthorized request"
        assert "an invocation that came from a UI context" in response.json()["detail"]
        assert failure(registered.publish_global("x", authorization=authorization)) is None
        body = {"channelName": "x", "claims": {}}
        assert failure(registered.post("/forge/realtime/v1/token", body, authorization)) is None


ARI = "ari:cloud:ecosystem::installation/i-1"


def test_ari_and_bare_id_are_one_installation(own: Api) -> None:
    own.emulator.change(strict=True)
    own.emulator.register(
        default={"installation": "site/default"},
        invocations={"a": {"installation": ARI}, "b": {"installation": "i-1"}},
        installations=[ARI, "i-1"],
    )
    assert own.get("/_emulator/state").json()["contexts"]["installations"] == ["default", "i-1"]
    with own.emulator.subscribe("x", is_global=True, invocation="a") as subscription:
        for authorization in ("Forge id=a", "Forge id=b", "Forge installationId=i-1", f"Forge installationId={ARI}"):
            assert own.publish_global("x", authorization=authorization).json()["eventId"]
            assert subscription.receive().payload == "x"
    own.emulator.fail_next(status=503, installation=ARI)
    assert own.publish_global("x", authorization="Forge installationId=i-1").status_code == 503


def test_unregistered_ids_use_the_default_context(own: Api) -> None:
    own.emulator.register(default={"installation": "i-1", "module": "m", "context": {"space": "S"}})
    own.emulator.register(invocations={"known": {}, "other": {"context": {}}})
    assert reaches(own, "nobody-knows-me", "known")
    assert not reaches(own, "nobody-knows-me", "other")
    own.publish_global("x", authorization="Forge installationId=nobody-knows-me")
    assert own.emulator.events[-1].address.installation == "i-1"


def test_strict_refuses_unregistered_ids(registered: Api) -> None:
    registered.emulator.change(strict=True)
    body = {"channelName": "x", "claims": {}}
    for authorization, what in [("Forge id=no", "invocation"), ("Forge installationId=no", "installation")]:
        for response in (
            registered.publish_global("x", authorization=authorization),
            registered.post("/forge/realtime/v1/token", body, authorization),
        ):
            assert (response.status_code, response.json()["code"]) == (401, "UNAUTHORIZED")
            assert response.json()["message"].startswith(f"Unauthorized request: this {what} is not registered")
    assert registered.publish("x", authorization="Forge id=no").status_code == 401
    with pytest.raises(SubscriptionRefused, match="this invocation is not registered"):
        registered.emulator.subscribe("x", invocation="no").__enter__()
    with registered.emulator.subscribe("x", invocation="issue-1"):
        assert registered.publish("x", authorization="Forge id=issue-1").json()["eventId"]
    # A page that names no invocation uses the default context, which always exists.
    with registered.emulator.subscribe("x"):
        pass
    assert registered.publish_global("x", authorization="Forge installationId=i-2").status_code == 200


def test_reset_keeps_contexts_of_the_start_only(own: Api) -> None:
    given: dict[str, Any] = {"invocations": {"a": {"installation": "i-1"}}}
    with Emulator(contexts=given, settings=Settings(strict=True)) as emulator:
        given["invocations"]["b"] = {}
        emulator.register(invocations={"c": {}}, installations=["i-9"])
        emulator.reset()
        known = emulator.subscribe("x", invocation="a")
        with known:
            pass
        for id_ in ("b", "c"):
            with pytest.raises(SubscriptionRefused):
                emulator.subscribe("x", invocation=id_).__enter__()


@pytest.mark.parametrize(
    ("registry", "problem"),
    [
        ({"invocations": {"a": {"installation": ""}}}, r"invocations.a.installation: breaks the schema's rule 'minLen"),
        ({"invocations": {"a": {"instalation": "i"}}}, "invocations.a: has an unknown key 'instalation'; allowed"),
        ({"invocations": {"a": {"\u202e" + "k" * 1000: 1}}}, rf"unknown key '\\u202e{'k' * 99}'; allowed"),
        ({"invocations": {"a": {"context": {"site": "s"}}}}, "allowed are board, issue, project"),
        ({"invocations": {"a": {"fromUi": "no"}}}, "fromUi: must be of type boolean"),
        ({"installations": ["i", 1]}, r"installations\[1\]: must be of type string"),
        ({"default": []}, "default: must be of type object"),
    ],
)
def test_malformed_registry_is_refused_as_a_whole(own: Api, registry: Any, problem: str) -> None:
    registry = {"invocations": {}, **registry}
    registry["invocations"]["good"] = {"installation": "i-1"}
    with pytest.raises(ValueError, match=problem):
        own.emulator.register(**registry)
    with pytest.raises(ValueError, match=problem):
        Emulator(contexts=registry)
    response = own.post("/_emulator/contexts", registry)
    assert (response.status_code, response.json()["code"]) == (400, "INVALID_REQUEST")
    own.emulator.register()
    assert own.get("/_emulator/state").json()["contexts"]["invocations"] == {}


def test_contexts_file_is_read_or_its_error_reported(tmp_path: Path) -> None:
    path = tmp_path / "contexts.json"
    path.write_text('{"installations": ["i-1"]}', encoding="utf-8")
    assert read_contexts(path) == {"installations": ["i-1"]}
    for bad in (b"{", b"\xff", b"[" * 100_000):
        path.write_bytes(bad)
        with pytest.raises(EmulatorError, match=r"contexts\.json: cannot be read as JSON"):
            read_contexts(path)
    path.write_text('{"invocations": {"a": {"instalation": "i"}}}', encoding="utf-8")
    with pytest.raises(
        EmulatorError, match=r"contexts\.json: invocations\.a: has an unknown key 'instalation'; allowed are"
    ):
        read_contexts(path)
    with pytest.raises(EmulatorError, match="No such file"):
        read_contexts(tmp_path / "none.json")


def test_invocation_context_is_served(registered: Api) -> None:
    response = registered.get("/invocation/context", "Forge id=issue-1")
    assert response.status_code == 200
    body = response.json()
    assert body["app"]["installationId"] == "ari:cloud:ecosystem::installation/i-1"
    assert body["app"]["module"] == {"key": "panel", "type": "jira:issuePanel"}
    assert set(body["app"]) == {"id", "installationId", "environment", "module"}
    assert set(body["app"]["environment"]) == {"type", "id"}
    assert body["context"] == {
        "cloudId": body["context"]["cloudId"],
        "moduleKey": "panel",
        "userAccess": {"enabled": True},
    }
    anybody = registered.get("/invocation/context", "Forge as=app,id=nobody-knows-me").json()
    assert (anybody["app"]["installationId"], anybody["context"]["userAccess"]) == (
        "ari:cloud:ecosystem::installation/default-installation",
        {"enabled": False},
    )
    assert registered.get("/invocation/context", "Forge installationId=i-1").status_code == 400
    assert registered.get("/invocation/context", None).status_code == 401
    registered.emulator.change(strict=True)
    assert registered.get("/invocation/context", "Forge id=nobody-knows-me").status_code == 401


def test_installations_are_listed_page_by_page(own: Api) -> None:
    assert [entry["id"] for entry in own.get("/v1/installations").json()["installations"]] == ["default-installation"]
    own.emulator.register(
        installations=[f"i-{number}" for number in range(5)], invocations={"a": {"installation": "j"}}
    )
    ids, cursors = [], []
    query: str | None = ""
    while query is not None:
        page = own.get(f"/v1/installations?pageSize=2{query}").json()
        assert 0 < len(page["installations"]) <= 2
        ids += [entry["id"] for entry in page["installations"]]
        cursors.append(page["cursor"])
        query = None if page["cursor"] is None else f"&cursor={page['cursor']}"
    assert len(set(cursors)) == 3
    assert not any(cursor.isdigit() for cursor in cursors[:-1])
    assert sorted(ids) == ["i-0", "i-1", "i-2", "i-3", "i-4", "j"]
    everything = own.get("/v1/installations").json()
    assert ([entry["id"] for entry in everything["installations"]], everything["cursor"]) == (ids, None)
    assert everything["installations"][0] == {
        "id": ids[0],
        "installationContext": "ari:cloud:jira::site/emulated",
        "version": "1.0.0",
        "secondaryInstallationContexts": [],
    }


def test_page_has_at_most_100_installations(own: Api) -> None:
    own.emulator.register(installations=[f"i-{number}" for number in range(101)])
    page = own.get("/v1/installations").json()
    assert len(page["installations"]) == 100
    last = own.get(f"/v1/installations?cursor={page['cursor']}").json()
    assert ([entry["id"] for entry in last["installations"]], last["cursor"]) == (["i-100"], None)


@pytest.mark.parametrize("id_", ["i-1", ARI])
def test_one_installation_is_described(own: Api, id_: str) -> None:
    own.emulator.register(installations=["i-1"])
    [listed] = own.get("/v1/installations").json()["installations"]
    assert own.get(f"/v1/installation/{id_}").json() == {**listed, "scopes": [], "external": []}


def test_unknown_installation_is_not_found(own: Api) -> None:
    response = own.get("/v1/installation/i-1")
    assert (response.status_code, response.json()["code"]) == (404, "NOT_FOUND")
    assert own.get("/v1/installation/default-installation").status_code == 200


@pytest.mark.parametrize(("path", "limit"), [("/v1/installations", 100), ("/v1/installation/default-installation", 10)])
def test_requests_for_installations_are_limited_per_minute(own: Api, path: str, limit: int) -> None:
    own.emulator.change(limit=None)
    assert [own.get(path).status_code for _ in range(limit)] == [200] * limit
    response = own.get(path)
    assert (response.status_code, response.json()["code"]) == (429, "RATE_LIMIT_EXCEEDED")
    assert f"Over {limit} requests" in response.json()["message"]
    own.emulator.advance(60)
    assert own.get(path).status_code == 200


def test_registered_default_installation_is_listed(own: Api) -> None:
    own.emulator.register(default={"installation": "mine"}, installations=["other"])
    listed = own.get("/v1/installations").json()["installations"]
    assert [entry["id"] for entry in listed] == ["mine", "other"]


@pytest.mark.parametrize(
    "query", ["pageSize=0", "pageSize=101", "pageSize=x", "pageSize=-1", "cursor=x", "cursor=", "cursor=0", "cursor=2"]
)
def test_invalid_page_size_or_cursor_is_refused(own: Api, query: str) -> None:
    response = own.get(f"/v1/installations?{query}")
    assert (response.status_code, response.json()["code"]) == (400, "INVALID_REQUEST")


modules = st.text(min_size=1, max_size=8) | st.sampled_from(["m", 'm issue="1"', 'm issue="1" project="2"'])
products = st.dictionaries(st.sampled_from(OVERRIDES), st.sampled_from(["1", "2", 'x" board="1']), max_size=3)
contexts = st.builds(Context, module=modules, product=products)
overriding = st.none() | st.lists(st.sampled_from(OVERRIDES), max_size=3)
SIDECAR = Sidecar(read_document(load_document()), Settings())


def parts(context: Context, overrides: list[str] | None) -> Any:
    if overrides is None:
        return context.module, context.product
    return None, {name: context.product.get(name) for name in overrides}


@given(first=contexts, second=contexts, one=overriding, other=overriding)
@settings(max_examples=300)
def test_scopes_are_equal_exactly_when_their_parts_are(
    first: Context, second: Context, one: list[str] | None, other: list[str] | None
) -> None:
    def scope(context: Context, overrides: list[str] | None) -> str | None:
        return SIDECAR._scope(context, overrides)

    assert (scope(first, one) == scope(second, other)) == (parts(first, one) == parts(second, other))
