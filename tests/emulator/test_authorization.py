"""Grammar of the authorization header."""

from __future__ import annotations

import string

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.emulator.api import Api, failure

GOOD = [
    "Forge id=inv-1",
    "Forge as=app,id=invocation-123",
    "Forge as=user,id=invocation-123",
    "Forge as=user,accountId=user-123,id=invocation-123",
    "Forge id=i,accountId=a,as=user",
    "Forge as=app,installationId=ari:cloud:ecosystem::installation/1",
]

BAD = {
    "Bearer id=inv-1": "start with 'Forge '",
    "forge id=inv-1": "start with 'Forge '",
    "Forge": "start with 'Forge '",
    "Forge inv-1": "part 1",
    "Forge id=inv-1,": "part 2",
    "Forge as=app, id=inv-1": "part 2",
    "Forge  id=inv-1": "part 1",
    "Forge Id=inv-1": "unknown key",
    "Forge id=inv-1,role=x": "unknown key",
    "Forge id=a,id=b": "id twice",
    "Forge id=": "is empty",
    "Forge id=inv 1": "character",
    "Forge id=a=b": "character",
    "Forge id=caf\xe9": "character",
    "Forge as=app": "neither",
    "Forge id=a,installationId=b": "both",
    "Forge id=a,as=admin": "must be app or user",
    "Forge id=a,accountId=b": "only allowed with as=user",
    "Forge id=a,as=app,accountId=b": "only allowed with as=user",
}

BODY = {"name": "authorization", "payload": "x"}
PATH = "/forge/realtime/v1/publish/global"


@pytest.mark.parametrize("header", GOOD)
def test_documented_headers_are_accepted(api: Api, header: str) -> None:
    assert api.post(PATH, BODY, header).status_code == 200


@pytest.mark.parametrize(("header", "problem"), BAD.items())
def test_other_headers_are_refused_with_the_reason(api: Api, header: str, problem: str) -> None:
    response = api.post(PATH, BODY, None, headers={"forge-proxy-authorization": header.encode("latin-1")})
    assert response.status_code == 401
    assert response.json()["code"] == "UNAUTHORIZED"
    assert response.json()["message"].startswith("Unauthorized request: ")
    assert problem in response.json()["message"]


def test_missing_header_is_refused(api: Api) -> None:
    response = api.post(PATH, BODY, None)
    assert response.status_code == 401
    assert "Unauthorized request: the header forge-proxy-authorization is missing" in response.json()["message"]


def test_repeated_header_is_refused(api: Api, client: httpx.Client) -> None:
    headers = [("forge-proxy-authorization", "Forge id=a")] * 2
    response = client.post(api.emulator.url + PATH, headers=headers, json=BODY)
    assert response.status_code == 401
    assert "came 2 times" in response.json()["message"]


values = st.text(st.sampled_from(sorted(set(string.printable[:94]) - set(",="))), min_size=1, max_size=40)


@given(
    key=st.sampled_from(["id", "installationId"]),
    value=values,
    acts_as=st.sampled_from([None, "app", "user"]),
    account=st.none() | values,
    data=st.data(),
)
@settings(deadline=None, max_examples=60)
def test_pairs_may_come_in_any_order(
    api: Api, key: str, value: str, acts_as: str | None, account: str | None, data: st.DataObject
) -> None:
    pairs = [f"{key}={value}"]
    if acts_as is not None:
        pairs.append(f"as={acts_as}")
    if acts_as == "user" and account is not None:
        pairs.append(f"accountId={account}")
    header = "Forge " + ",".join(data.draw(st.permutations(pairs)))

    assert api.post(PATH, BODY, header).status_code == 200
    read = api.emulator.requests[-1].authorization
    assert read is not None
    assert (read.invocation_id if key == "id" else read.installation_id) == value
    assert (read.installation_id if key == "id" else read.invocation_id) is None
    assert read.acts_as == acts_as
    assert read.account_id == (account if acts_as == "user" else None)


@given(header=st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF, exclude_categories=["Cc"]), min_size=1))
@settings(deadline=None, max_examples=60)
def test_noise_is_refused_and_not_repeated_in_the_message(api: Api, header: str) -> None:
    response = api.post(
        PATH, BODY, None, headers={"forge-proxy-authorization": f"Forge id=ok,{header}".encode("latin-1")}
    )
    assert response.status_code in (401, 200)
    if response.status_code == 200:
        assert header in ("as=app", "as=user")
    if len(header) > 20:
        assert header not in response.text


def test_publish_by_installation_is_refused(api: Api, channel: str) -> None:
    response = api.publish(channel, authorization="Forge as=app,installationId=inst-1")
    assert failure(response) == "Unauthorized request"
    assert "cannot be done on behalf of an installationId" in response.json()["detail"]
    assert "global channel" in response.json()["detail"]


def test_token_is_signed_for_an_installation(api: Api, channel: str) -> None:
    body = {"channelName": channel, "claims": {}}
    assert api.post("/forge/realtime/v1/token", body, "Forge installationId=inst-1").status_code == 200
