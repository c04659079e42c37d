"""Each kind of change: the report, the generated code, and the behavior of the emulator."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest

from forge_realtime_emulator import Emulator, Settings
from generator.compare.documents import compare
from generator.compare.python_api import compare_apis, public_api
from generator.compare.rules import RULES, next_version, strongest
from generator.document import canonical_json
from tests.generator.changes import CASES, Case
from tests.generator.conftest import render_unformatted

Lay = Callable[[dict[str, Any]], Path]
# Most cases start from the same client.
public_api_of = cache(public_api)


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def lay(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Lay:
    """Make the generated half of a client."""
    made: dict[str, Path] = {}

    def lay(document: dict[str, Any]) -> Path:
        text = canonical_json(document)
        if text not in made:
            folder = tmp_path_factory.mktemp("client")
            config = repository / "generator/openapi-python-client.yaml"
            render_unformatted(document, config, folder / "forge_realtime/_api")
            (folder / "forge_realtime/__init__.py").touch()
            made[text] = folder
        return made[text]

    return lay


def test_cases_cover_every_rule() -> None:
    assert {kind for case in CASES.values() for kind, _, _ in case.changes} == set(RULES)


@pytest.mark.parametrize("name", CASES)
def test_change_is_reported(name: str, derived: dict[str, Any]) -> None:
    case = CASES[name]
    old, new = case.documents(derived)
    before = copy.deepcopy((old, new))
    found = [(change.kind, str(change.rule.effect), change.python) for change in compare(old, new).changes]
    assert sorted(found) == sorted(case.changes)
    assert (old, new) == before
    assert compare(old, old).changes == compare(new, new).changes == []


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_change_reaches_generated_code(name: str, derived: dict[str, Any], lay: Lay) -> None:
    case = CASES[name]
    old, new = case.documents(derived)
    folders = lay(old), lay(new)
    old_api, new_api = (public_api_of(folder) for folder in folders)
    assert {name: (old_api.get(name), new_api.get(name)) for name in case.code} == case.code

    comparison = compare(old, new)
    judged = compare_apis(*folders, comparison.read_only)
    assert str(judged.effect) == case.griffe, (judged.breakages, judged.files)
    # Names in the report exist in the code.
    known = {"RealtimeClient", "AsyncRealtimeClient"} | old_api.keys() | new_api.keys()
    known |= {name.rsplit(".", 1)[-1] for name in known if name.startswith("forge_realtime.")}
    for change in comparison.changes:
        assert {name.split("(")[0] for name in change.python} <= known


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.calls])
def test_emulator_follows_change(name: str, derived: dict[str, Any], client: httpx.Client) -> None:
    case = CASES[name]
    for side, document in enumerate(case.documents(derived)):
        header = case.header if side else "forge-proxy-authorization"
        with Emulator(document=document, settings=Settings(limit=None)) as emulator:
            statuses = [
                client.request(
                    method, emulator.url + path, json=body, headers={header: "Forge as=app,id=invocation-1"}
                ).status_code
                for method, path, body, *_ in case.calls
            ]
        assert statuses == [call[3 + side] for call in case.calls]


def test_emulator_requires_renamed_header(derived: dict[str, Any], client: httpx.Client) -> None:
    case = CASES["security changed"]
    method, path, body, *_ = case.calls[0]
    with Emulator(document=case.documents(derived)[1]) as emulator:
        headers = {"forge-proxy-authorization": "Forge as=app,id=invocation-1"}
        assert client.request(method, emulator.url + path, json=body, headers=headers).status_code == 401


@pytest.mark.parametrize("name", CASES)
def test_rejected_old_call_is_reported_to_break_deployed_clients(name: str, derived: dict[str, Any]) -> None:
    case = CASES[name]
    old, new = case.documents(derived)
    known = {name for path in old["paths"].values() for operation in path.values() for name in _properties(operation)}
    if any(before == 200 and after >= 400 and (body or {}).keys() <= known for *_, body, before, after in case.calls):
        assert any(change.rule.deployed for change in compare(old, new).changes)


@pytest.mark.parametrize(
    ("same_type", "status", "deployed"),
    [(False, "202", True), (True, "202", True), (False, "404", False), (True, "404", False)],
)
def test_added_success_status_breaks_deployed_clients_and_added_error_status_does_not(
    same_type: bool, status: str, deployed: bool, derived: dict[str, Any]
) -> None:
    old, new = CASES["status added, same type" if same_type else "status added"].documents(derived)
    responses = new["paths"]["/forge/realtime/v1/publish"]["post"]["responses"]
    responses[status] = responses.pop("202")
    assert [change.rule.deployed for change in compare(old, new).changes] == [deployed]


def _properties(operation: dict[str, Any]) -> list[str]:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    return list(body.get("schema", {}).get("properties", {}))


@pytest.mark.parametrize(
    ("version", "effect", "expected"),
    [
        ("1.2.3", "breaking", ("major", "2.0.0")),
        ("1.2.3", "additive", ("minor", "1.3.0")),
        ("1.2.3", "cosmetic", ("patch", "1.2.4")),
        ("1.2.3", "none", ("none", "1.2.3")),
        ("0.4.3", "breaking", ("minor", "0.5.0")),
        ("0.4.3", "additive", ("patch", "0.4.4")),
        ("0.4.3", "cosmetic", ("patch", "0.4.4")),
        ("0.4.3.dev1", "none", ("none", "0.4.3.dev1")),
    ],
)
def test_effect_determines_next_version(version: str, effect: str, expected: tuple[str, str]) -> None:
    rules = [rule for rules in RULES.values() for rule in rules.values() if str(rule.effect) == effect]
    assert next_version(version, strongest(rule.effect for rule in rules)) == expected
    assert next_version("1.2.3", strongest([])) == ("none", "1.2.3")


def test_case_starts_from_derived_document(derived: dict[str, Any]) -> None:
    case = Case(after=lambda document: document.clear(), changes=[], griffe="none")
    assert case.documents(derived) == (derived, {})
