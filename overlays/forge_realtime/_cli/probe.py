"""The observations of `forge-realtime probe`: what the platform does where its documentation is silent."""

from __future__ import annotations

import base64
import json
import math
import threading
import time
import uuid
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from attrs import frozen

from .._core.authorization import bare_installation_id
from .._core.errors import ForgeRealtimeError, RateLimitedError
from .._core.group import HEADER
from .._core.http import httpx
from .._core.invocation import Invocation
from .._core.policy import RetryPolicy
from .._realtime.client import RealtimeClient

MOST_OPERATIONS: Final = 100
DEADLINE: Final = 120.0
"""Seconds for all operations together."""
_INTERVAL: Final = 0.2
"""Seconds between two operations: a tenth of the documented limit."""
_TIMEOUT: Final = 10.0
"""Seconds to wait for a response."""

_PUBLISH: Final = "/forge/realtime/v1/publish"
_GLOBAL: Final = "/forge/realtime/v1/publish/global"
_SIGN: Final = "/forge/realtime/v1/token"
_BY_INVOCATION: Final = "Forge as=app,id={id}"
_BY_INSTALLATION: Final = "Forge as=app,installationId={installation}"
_BY_ARI: Final = "Forge as=app,installationId=ari:cloud:ecosystem::installation/{installation}"
_BY_BOTH: Final = "Forge as=app,id={id},installationId={installation}"
_PAYLOAD: Final = "forge-realtime probe"
_OVERRIDES: Final = {"confluence": ["content", "space"], "bitbucket": ["pullRequest", "repository"]}
# Other values of a response may be ids, tokens or names.
_SHOWN: Final = ("code", "message", "errors")
_SHOWN_HEADERS: Final = ("retry-after", "forge-proxy-error")
_FAILURES: Final = (ForgeRealtimeError, httpx.RequestError, LookupError, TypeError, ValueError, AttributeError)

Answer: TypeAlias = tuple[str, dict[str, Any]]
"""An answer in words, and the settings of the emulator that follow from it."""
Look: TypeAlias = "Callable[[Probe], Answer]"

UNSEEN: Final = {
    "How long can an invocation's id be used?": "Publish with an old id. Set invocation_lifetime.",
    "How far back can be replayed?": "Subscribe in a page after ever longer pauses. Set replay_retention.",
    "Does a subscription end when its token expires?": "Keep a page subscribed for longer than the token is valid.",
    "Are events delivered in order, and once?": "Publish numbered events, and compare them in a page.",
    "After which pause does a container start cold, and for how long?": "Call the service after ever longer pauses.",
}
"""Questions that the probe cannot answer, and how to settle them."""


class OpenError(Exception):
    """A question stays open. The message says why, or how to settle it."""


@frozen
class Observation:
    """What settles one question: the calls in words, and the function that makes them."""

    name: str
    question: str
    operations: int
    calls: str
    option: str | None
    look: Look


OBSERVATIONS: Final[list[Observation]] = []
"""All observations in order, each with the command's option that asks for it. The last one uses up the limit."""


def _observe(question: str, operations: int, calls: str, option: str | None = None) -> Callable[[Look], Look]:
    def add(look: Look) -> Look:
        name = look.__name__.removeprefix("look_at_").replace("_", " ")
        OBSERVATIONS.append(Observation(name, question, operations, calls, option, look))
        return look

    return add


class Probe:
    """The calls of the observations: counted, paced, and kept as evidence. Thread-safe.

    Channels, payloads and claims are the probe's own. A page on the platform is subscribed to `page_channel`.
    """

    def __init__(self, url: str, invocation: str, page_channel: str | None) -> None:
        self.channel = f"forge-realtime-probe-{uuid.uuid4()}"
        self.event: dict[str, Any] = {"name": self.channel, "payload": _PAYLOAD}
        self.installation: str | None = None
        self.overrides = ["issue", "project"]
        self.is_emulator = False
        self.interval = _INTERVAL
        self.secrets = {invocation}
        self._url, self._invocation, self._page_channel = url.rstrip("/"), invocation, page_channel
        self._operations = 0
        self._evidence: Counter[str] = Counter()
        self._ends = time.monotonic() + DEADLINE
        self._lock = threading.Lock()
        hooks: dict[str, list[Any]] = {"request": [self._begin], "response": [self._keep]}
        verify = httpx.create_ssl_context()
        self._http = httpx.Client(trust_env=False, verify=verify, timeout=_TIMEOUT, event_hooks=hooks)
        retry = RetryPolicy(max_attempts=1, attempt_timeout=_TIMEOUT, deadline=_TIMEOUT)
        realtime = RealtimeClient(self._url, retry=retry, http_client=self._http)
        self.live = realtime.for_invocation(Invocation(invocation))

    def run(self, observations: Sequence[Observation], report: Callable[[str], object]) -> dict[str, Any]:
        """Make the observations in order, and return the content of the file for `emulate --config`.

        An observation that fails stays open. `report` is called with a line about each.

        Raises:
            httpx.RequestError: There is no HTTP response at the address.
        """
        settings: dict[str, Any] = {}
        findings: list[dict[str, Any]] = []
        with self._http, self.live:
            # A sidecar has no such path.
            state = _body(self.send("GET", "/_emulator/state", header=None)) or {}
            self.is_emulator = state.get("kind") == "state"
            for observation in observations:
                self._evidence.clear()
                finding: dict[str, Any] = {"name": observation.name, "question": observation.question}
                try:
                    finding["answer"], found = observation.look(self)
                    settings |= found
                except (OpenError, *_FAILURES) as error:
                    # The client wraps what its hooks raise.
                    opened = error.__cause__ if isinstance(error.__cause__, OpenError) else error
                    problem = f"{type(error).__name__}: {error}"
                    finding["open"] = (
                        str(opened)
                        if isinstance(opened, OpenError)
                        else f"A call failed or its response has another form ({problem}). See the evidence."
                    )
                finding["evidence"] = [f"{n} x {line}" if n > 1 else line for line, n in self._evidence.items()]
                findings.append(finding)
                report(f"{observation.name}: {finding.get('answer', 'open')}")
        findings += [{"question": question, "open": how} for question, how in UNSEEN.items()]
        return {
            "probed": datetime.now(UTC).isoformat(timespec="seconds"),
            "sidecar": "the emulator" if self.is_emulator else "the platform",
            "operations": self._operations,
            "settings": settings,
            "answers": [finding for finding in findings if "answer" in finding],
            "open": [finding for finding in findings if "open" in finding],
        }

    def send(
        self, method: str, path: str, body: Any = None, header: str | None = _BY_INVOCATION, note: str = ""
    ) -> httpx.Response:
        """Make a request unchecked. `{id}` and `{installation}` in the header stand for the ids; None is no header."""
        if header and "{installation}" in header and self.installation is None:
            raise OpenError("GET /invocation/context named no installation. Give the id of a request in progress.")
        filled = {HEADER: header.format(id=self._invocation, installation=self.installation)} if header else {}
        return self._http.request(method, self._url + path, json=body, headers=filled, extensions={"note": note})

    def post(self, note: str, path: str, body: Any, header: str | None = _BY_INVOCATION) -> str:
        """Make a request that the client would refuse, and return what became of it."""
        response = self.send("POST", path, body, header, note)
        if response.status_code == 429 or "RATE_LIMIT_EXCEEDED" in response.text:
            raise OpenError("Other calls have used up the rate limit. Run it again when there are fewer.")
        status, body = response.status_code, _body(response)
        if status == 200 and body is not None and not body.get("errors"):
            return "accepted"
        is_clear = 400 <= status < 500 or (status == 200 and body is not None)
        return f"{'refused' if is_clear else 'unclear'} ({status})"

    def compare(self, *variants: tuple[Any, ...]) -> str:
        """Make requests by `post`, and list what became of them."""
        return "; ".join(f"{variant[0]}: {self.post(*variant)}" for variant in variants)

    def sign(self, *permissions: Any, channel: str | None = None) -> str:
        """Sign a token, by default with both permissions and for the probe's channel."""
        signed = self.live.sign_realtime_token(channel or self.channel, {"probe": 1}, permissions or None)
        self.secrets.add(signed.token)
        return signed.token

    @contextmanager
    def page(self, **subscription: str) -> Iterator[tuple[str, Iterator[str]]]:
        """Provide a channel with a subscriber and its payloads, which stay unseen if it is a page of the platform."""
        if not self.is_emulator:
            if self._page_channel is None:
                raise OpenError("Only a page can subscribe. Open one and pass its channel by --page; see --help.")
            yield self._page_channel, iter(())
            return
        query = {"channel": self.channel, "invocation": self._invocation, **subscription}
        with self._http.stream("GET", f"{self._url}/_emulator/subscribe", params=query) as stream:
            messages = (json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: "))
            next(messages, None)
            yield self.channel, (message["payload"] for message in messages)

    def _begin(self, _: httpx.Request) -> None:
        with self._lock:
            if self._operations >= MOST_OPERATIONS or time.monotonic() > self._ends:
                raise OpenError(f"Not reached within {MOST_OPERATIONS} operations and {DEADLINE:g} s. Run it again.")
            self._operations += 1
            time.sleep(self.interval)

    def _keep(self, response: httpx.Response) -> None:
        request, headers = response.request, response.headers
        if request.url.path.startswith("/_emulator/"):
            return
        response.read()
        body = _body(response) or {"body": "no JSON object"}
        shown = {name: value for name, value in body.items() if name in _SHOWN or isinstance(value, int | None)}
        form = json.dumps({name: shown.get(name, type(value).__name__) for name, value in body.items()})
        note = f" ({note})" if (note := request.extensions.get("note")) else ""
        own = "".join(f" {name}: {headers[name]}" for name in _SHOWN_HEADERS if name in headers)
        line = f"{request.method} {request.url.path}{note}: {response.status_code}{own} {form}"
        with self._lock:
            for secret in self.secrets:
                line = line.replace(secret, "...")
            self._evidence[line[:500]] += 1


def _body(response: httpx.Response) -> dict[str, Any] | None:
    try:
        body = response.json()
    except (ValueError, RecursionError):
        body = None
    return body if isinstance(body, dict) else None


@_observe("How is an installation spelled?", 5, "GET context, GET installations, 3 x publish_global by installation")
def look_at_ids(probe: Probe) -> Answer:
    app = probe.send("GET", "/invocation/context", header="Forge id={id}").json()["app"]
    probe.installation = installation = bare_installation_id(app["installationId"])
    probe.secrets.add(str(installation))
    probe.overrides = _OVERRIDES.get(app["module"]["type"].partition(":")[0], probe.overrides)
    listed = probe.send("GET", "/v1/installations?pageSize=1", header=None).json()["installations"][0]["id"]
    named = ("an ARI" if id_.startswith("ari:") else "a bare id" for id_ in (app["installationId"], listed))
    headers = {"a bare id": _BY_INSTALLATION, "an ARI": _BY_ARI, "both ids": _BY_BOTH}
    taken = probe.compare(*((note, _GLOBAL, probe.event, header) for note, header in headers.items()))
    return f"/invocation/context and /v1/installations name {' and '.join(named)}; in the header, {taken}", {}


@_observe("How long is a token valid, what signs it, and where are its claims?", 1, "sign_realtime_token")
def look_at_token(probe: Probe) -> Answer:
    parts = probe.sign().split(".")[:2]
    signed_at = int(time.time())
    header, payload = (json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))) for part in parts)
    lifetime = max(0, int(payload["exp"] - payload.get("iat", signed_at)))
    claims = [name for name, value in payload.items() if isinstance(value, dict) and "probe" in value]
    return f"{lifetime} s, {header['alg']}, claims in {claims}; it has {[*payload]}", {"token_lifetime": lifetime}


@_observe("Can a token be signed on behalf of an installation?", 1, "sign_realtime_token by installation")
def look_at_token_by_installation(probe: Probe) -> Answer:
    verdict = probe.post("by installation", _SIGN, {"channelName": probe.channel, "claims": {}}, _BY_INSTALLATION)
    if verdict.startswith("unclear"):
        raise OpenError("The response is unclear; see the evidence, or run it again.")
    return verdict, {"token_by_installation": verdict == "accepted"}


@_observe(
    "Do refused operations have the status 200 or 4xx?", 6, "2 x sign_realtime_token, 4 x publish that is refused"
)
def look_at_errors(probe: Probe) -> Answer:
    other, subscribing = probe.sign(channel=f"{probe.channel}-other"), probe.sign("subscribe")
    tokens = {"not a token": "none", "token of another channel": other, "no permission to publish": subscribing}
    verdicts = {
        probe.post(note, _PUBLISH, {**probe.event, "options": {"token": text}}) for note, text in tokens.items()
    }
    if probe.installation is not None:
        verdicts.add(probe.post("by installation", _PUBLISH, probe.event, _BY_INSTALLATION))
    in_200 = {verdict == "refused (200)" for verdict in verdicts}
    if len(in_200) > 1 or not all(verdict.startswith("refused") for verdict in verdicts):
        raise OpenError(f"The emulator has no setting for {', '.join(sorted(verdicts))}; see the evidence.")
    return ", ".join(sorted(verdicts)), {"errors_in_200": in_200 == {True}}


@_observe("Which undocumented bodies are accepted?", 6, "4 x publish_global, publish, sign_realtime_token")
def look_at_bodies(probe: Probe) -> Answer:
    overrides, unknown = {"contextOverrides": probe.overrides}, {"contextOverrides": ["forge-realtime-probe"]}
    answer = probe.compare(
        ("no header", _GLOBAL, probe.event, None),
        ("no payload", _GLOBAL, {"name": probe.channel}),
        ("unknown override", _PUBLISH, {**probe.event, "options": unknown}),
        ("empty permissions", _SIGN, {"channelName": probe.channel, "claims": {}, "permissions": []}),
        ("overrides of a global channel", _GLOBAL, {**probe.event, "options": overrides}),
        ("token null", _GLOBAL, {**probe.event, "options": {"token": None}}),
    )
    return answer, {}


@_observe("Which liberties does the header allow?", 6, "6 x publish_global, each with another header")
def look_at_header(probe: Probe) -> Answer:
    headers = {
        "id before as": "Forge id={id},as=app",
        "no as": "Forge id={id}",
        "space after the comma": "Forge as=app, id={id}",
        "lower-case scheme": "forge as=app,id={id}",
        "id twice": "Forge as=app,id={id},id={id}",
        "unknown key": "Forge as=app,id={id},probe=1",
    }
    return probe.compare(*((note, _GLOBAL, probe.event, header) for note, header in headers.items())), {}


@_observe("Does the order of context overrides matter?", 3, "subscribe, 2 x publish with two context overrides")
def look_at_order_of_overrides(probe: Probe) -> Answer:
    with probe.page(contextOverrides=",".join(probe.overrides)) as (channel, _):
        if probe.live.publish(channel, _PAYLOAD, context_overrides=probe.overrides).event_id is None:
            raise OpenError(f"No page is subscribed to {channel} with the context overrides {probe.overrides}.")
        result = probe.live.publish(channel, _PAYLOAD, context_overrides=probe.overrides[::-1])
    matters = result.event_id is None
    return "yes" if matters else "no", {"overrides_in_order": matters}


@_observe("Does a publish with [] reach global subscriptions?", 3, "subscribe, publish_global, publish with []")
def look_at_empty_overrides(probe: Probe) -> Answer:
    with probe.page(isGlobal="true") as (channel, _):
        if probe.live.publish_global(channel, _PAYLOAD).event_id is None:
            raise OpenError(f"No page is subscribed to the global channel {channel}.")
        result = probe.live.publish(channel, _PAYLOAD, context_overrides=[])
    reaches = result.event_id is not None
    return "yes" if reaches else "no", {"empty_overrides_are_global": reaches}


@_observe("Which earlier events are replayed?", 5, "2 x subscribe and 3 x publish_global, on the emulator only")
def look_at_replay(probe: Probe) -> Answer:
    if not probe.is_emulator:
        raise OpenError("Only a page sees it: publish to nobody, then to a page, and reload it with replaySeconds: 60.")
    channel = f"{probe.channel}-replay"
    probe.live.publish_global(channel, "unheard")
    with probe.page(channel=channel, isGlobal="true"):
        probe.live.publish_global(channel, "heard")
        with probe.page(channel=channel, isGlobal="true", replaySeconds="60") as (_, payloads):
            probe.live.publish_global(channel, "end")
            replayed = {*iter(lambda: next(payloads), "end")}
    return f"of heard and unheard events: {sorted(replayed)}", {"keep_unheard": "unheard" in replayed}


@_observe("How large may a payload be?", 12, "12 x publish_global with up to 2 MiB", "--payload-size")
def look_at_payload_size(probe: Probe) -> Answer:
    def is_refused(kib: int) -> bool:
        try:
            return probe.post(f"{kib} KiB", _GLOBAL, {**probe.event, "payload": "x" * kib * 1024}) != "accepted"
        except httpx.RequestError:
            return True

    if not (most := bisect_left(range(1, 2049), x=True, key=is_refused)):
        raise OpenError("No payload was accepted; see the evidence, or run it again.")
    return f"{most} KiB are accepted{', and more was not tried' if most == 2048 else f', {most + 1} KiB are not'}", {}


@_observe("How is the limit reported, and what counts?", 61, "9 refused publishes and 52 signs at once", "--rate-limit")
def look_at_rate_limit(probe: Probe) -> Answer:
    limited: list[RateLimitedError] = []
    refused: list[Any] = [("not a token", _PUBLISH, {**probe.event, "options": {"token": "none"}})] * 6
    refused += [("by installation", _PUBLISH, probe.event, _BY_INSTALLATION)] * 3

    def sign(_: int) -> None:
        try:
            probe.live.sign_realtime_token(probe.channel, {})
        except RateLimitedError as error:
            limited.append(error)

    # Let the earlier operations leave the limit's second.
    time.sleep(1.5)
    probe.interval = 0
    with ThreadPoolExecutor(16) as pool:
        began = time.monotonic()
        list(pool.map(lambda variant: probe.post(*variant), refused))
        list(pool.map(sign, range(52)))
        seconds = time.monotonic() - began
    if not limited:
        raise OpenError(f"61 operations in {seconds:.1f} s were not limited. If it took more than 1 s, run it again.")
    # 50 in a second, less the refused ones that count.
    accepted, error = 52 - len(limited), limited[0]
    counted = {50: "none", 47: "by installation", 44: "not a token", 41: "both"}.get(accepted, "unclear")
    answer = (
        f"{error.status}, {error.code}, Retry-After {error.retry_after}; after 9 refused ones {accepted} were accepted"
    )
    retry_after = None if error.retry_after is None else math.ceil(error.retry_after)
    return f"{answer} in {seconds:.1f} s: of the refused ones counted {counted}", {"limit_retry_after": retry_after}
