from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from forge_realtime import Authorization, UsageError

FIELD = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters=",="), min_size=1)
ANY_TEXT = st.one_of(FIELD, st.text(), st.text(st.sampled_from("ab,= \r\n\t\0é\u2028")))


# The documented examples, and the header without `as`.
@pytest.mark.parametrize(
    ("settings", "header"),
    [
        ({"invocation_id": "invocation-123"}, "Forge as=app,id=invocation-123"),
        ({"invocation_id": "invocation-123", "as_": "user"}, "Forge as=user,id=invocation-123"),
        (
            {"invocation_id": "invocation-123", "as_": "user", "account_id": "user-123"},
            "Forge as=user,accountId=user-123,id=invocation-123",
        ),
        ({"installation_id": "installation-1"}, "Forge as=app,installationId=installation-1"),
        (
            {"installation_id": "ari:cloud:ecosystem::installation/8d5f651a-b2e9-4b38-aac6-30abc7f3effb"},
            "Forge as=app,installationId=8d5f651a-b2e9-4b38-aac6-30abc7f3effb",
        ),
        ({"invocation_id": "invocation-123", "as_": None}, "Forge id=invocation-123"),
    ],
)
def test_documented_examples_are_built(settings: dict[str, Any], header: str) -> None:
    assert Authorization(**settings).header == header


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "exactly one of invocation_id and installation_id"),
        ({"invocation_id": "i", "installation_id": "j"}, "exactly one of invocation_id and installation_id"),
        ({"invocation_id": "i", "account_id": "a"}, "pass as_='user' with it"),
        ({"invocation_id": "i", "account_id": "a", "as_": None}, "pass as_='user' with it"),
        ({"invocation_id": "i", "as_": "admin"}, "as_ must be 'app', 'user' or None"),
        ({"invocation_id": ""}, "^id cannot be sent"),
        ({"invocation_id": b"i"}, "^id cannot be sent"),
        ({"installation_id": "a,as=user"}, "^installationId cannot be sent"),
        ({"invocation_id": "i", "as_": "user", "account_id": "a b"}, "^accountId cannot be sent"),
    ],
)
def test_invalid_combinations_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Authorization(**settings)


@given(
    invocation_id=st.none() | ANY_TEXT,
    installation_id=st.none() | ANY_TEXT,
    as_=st.sampled_from(["app", "user", None, "root", "app,id=x"]),
    account_id=st.none() | ANY_TEXT,
)
@example(invocation_id=None, installation_id="/0", as_="app", account_id=None)
def test_no_value_leaves_its_field(**settings: Any) -> None:
    try:
        header = Authorization(**settings).header
    except UsageError:
        return
    assert header.isascii()
    assert header.isprintable()
    scheme, pairs = header.split(" ")
    assert scheme == "Forge"
    given_fields = {
        "as": settings["as_"],
        "accountId": settings["account_id"],
        "id": settings["invocation_id"],
        # Of an ARI, the part that `/v1/installations` lists.
        "installationId": settings["installation_id"] and settings["installation_id"].split("/")[-1],
    }
    assert [tuple(pair.split("=")) for pair in pairs.split(",")] == [
        (key, value) for key, value in given_fields.items() if value is not None
    ]


@given(invocation_id=FIELD, account_id=FIELD)
def test_all_visible_ascii_but_separators_is_accepted(invocation_id: str, account_id: str) -> None:
    authorization = Authorization(invocation_id=invocation_id, as_="user", account_id=account_id)
    assert authorization.header == f"Forge as=user,accountId={account_id},id={invocation_id}"


def test_repr_shows_no_id() -> None:
    authorization = Authorization(invocation_id="secret-1", as_="user", account_id="secret-2")
    assert "secret" not in repr(authorization)
