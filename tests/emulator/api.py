"""Client for the operations, which calls them as a container does."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from typing import Any

import httpx

from forge_realtime_emulator import Emulator


def failure(response: httpx.Response) -> str | None:
    """Return the message of a failed operation, which must have the documented form, or `None` if it succeeded."""
    assert response.status_code == 200, response.text
    body = response.json()
    if "errors" not in body:
        return None
    result = {name: value for name, value in body.items() if name not in ("errors", "detail")}
    assert result in ({"eventId": None, "eventTimestamp": None}, {"token": None, "expiresAt": None})
    [error] = body["errors"]
    assert list(error) == ["message"]
    message: str = error["message"]
    return message


class Api:
    """Client of one emulator."""

    def __init__(self, emulator: Emulator, client: httpx.Client) -> None:
        self.emulator = emulator
        self._client = client

    def post(
        self, path: str, body: Any = None, authorization: str | None = "Forge as=app,id=inv-1", **kwargs: Any
    ) -> httpx.Response:
        headers = {
            **({"forge-proxy-authorization": authorization} if authorization else {}),
            **kwargs.pop("headers", {}),
        }
        if body is not None:
            kwargs["content"] = json.dumps(body)
            headers = {"Content-Type": "application/json", **headers}
        return self._client.post(self.emulator.url + path, headers=headers, **kwargs)

    def get(self, path: str, authorization: str | None = None) -> httpx.Response:
        headers = {"forge-proxy-authorization": authorization} if authorization else {}
        return self._client.get(self.emulator.url + path, headers=headers)

    def delete(self, path: str) -> httpx.Response:
        return self._client.delete(self.emulator.url + path)

    def get_stream(self, path: str) -> AbstractContextManager[httpx.Response]:
        return self._client.stream("GET", self.emulator.url + path, timeout=10)

    def stream(self, query: str) -> AbstractContextManager[httpx.Response]:
        """Subscribe over Server-Sent Events."""
        return self.get_stream(f"/_emulator/subscribe?{query}")

    def publish(
        self, channel: str, payload: str = "x", authorization: str = "Forge id=inv-1", **options: Any
    ) -> httpx.Response:
        body = {"name": channel, "payload": payload, "options": options}
        return self.post("/forge/realtime/v1/publish", body, authorization)

    def publish_global(
        self, channel: str, payload: str = "x", authorization: str = "Forge id=inv-1", **options: Any
    ) -> httpx.Response:
        body = {"name": channel, "payload": payload, "options": options}
        return self.post("/forge/realtime/v1/publish/global", body, authorization)

    def sign(self, channel: str, claims: dict[str, Any] | None = None, permissions: list[str] | None = None) -> str:
        body: dict[str, Any] = {"channelName": channel, "claims": claims or {}}
        if permissions is not None:
            body["permissions"] = permissions
        token: str = self.post("/forge/realtime/v1/token", body).json()["token"]
        return token
