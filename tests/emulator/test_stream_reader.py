"""`streams.js`, the front end's reader of streams, in Chromium: with a fake bridge, and with the official one."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from playwright.sync_api import Browser, Error, Page, Route

from forge_realtime import RealtimeClient, RetryPolicy
from forge_realtime_emulator import Emulator, Settings
from tests.emulator.api import Api
from tests.emulator.envelopes import ID, NO_ENVELOPES, VECTORS, envelope
from tests.emulator.site import Site

pytestmark = pytest.mark.slow

SHIPPED = files("forge_realtime") / "frontend"
OTHER = "f" * 32
HOLD = 1_000

# A page without a bundler. The test feeds its fake bridge.
PAGE = """<!doctype html>
<script type="importmap">{"imports": {"@forge/bridge": "/bridge.js"}}</script>
<script type="module">
import { onGlobalStream, onStream } from "/streams.js";
const names = ["onUpdate", "onEnd", "onGap"];
const noting = Object.fromEntries(names.map((name) => [name, (event) => window.seen.push([name, event])]));
window.open = async (handlers = noting, fetched = {}) => {
  window.subscription?.unsubscribe(); // that of the test before
  window.seen = [];
  window.subscribed = [];
  const fetchValue = ({ digest }) => fetched[digest];
  window.subscription = await onStream("chat", { fetchValue, ...handlers }, { replaySeconds: 60 });
};
window.openGlobal = () => onGlobalStream("news", {});
window.ready = true;
</script>"""
BRIDGE = """
const subscribe = (isGlobal) => async (channel, onEvent, options) => {
  window.subscribed.push({ channel, isGlobal, options });
  window.give = onEvent;
  return { unsubscribe: async () => window.subscribed.pop() };
};
export const realtime = { subscribe: subscribe(false), subscribeGlobal: subscribe(true) };
export const invokeService = () => {};
"""


@pytest.fixture(scope="module")
def reading(browser: Browser) -> Iterator[Page]:
    """Page whose clock only the test advances."""
    parts = {"/": ("text/html", PAGE), "/bridge.js": ("text/javascript", BRIDGE)}
    parts["/streams.js"] = ("text/javascript", (SHIPPED / "streams.js").read_text(encoding="utf-8"))

    def fulfil(route: Route) -> None:
        kind, body = parts[route.request.url.removeprefix("http://app.test")]
        route.fulfill(content_type=kind, body=body)

    with closing(browser.new_page()) as page:
        page.route("http://app.test/**", fulfil)
        page.clock.install(time=0)
        page.clock.pause_at(1_000)
        page.goto("http://app.test/")
        page.wait_for_function("window.ready")
        yield page


@pytest.fixture
def reader(reading: Page) -> Reader:
    return Reader(reading)


class Reader:
    """Subscription of the page."""

    def __init__(self, page: Page, fetched: Any = None) -> None:
        self.page = page
        page.evaluate("fetched => window.open(undefined, fetched)", fetched or {})

    def give(self, *payloads: Any) -> None:
        self.page.evaluate("payloads => payloads.forEach((payload) => window.give(payload))", list(payloads))

    def wait(self, milliseconds: int) -> None:
        if milliseconds > 0:
            self.page.clock.run_for(milliseconds)

    @property
    def seen(self) -> list[Any]:
        seen: list[Any] = self.page.evaluate("window.seen")
        return seen

    @property
    def text(self) -> str:
        """Return the texts of the updates, with the numbers of gaps in brackets."""
        shown = {"onUpdate": "{data}", "onGap": "[{from}-{to}]", "onEnd": "."}
        return "".join(shown[handler].format(**event) for handler, event in self.seen)


def letters(*seqs: int, stream: str = ID) -> list[str]:
    return [envelope(seq, chr(ord("a") + seq), stream=stream) for seq in seqs]


def test_reader_subscribes_through_the_bridge_and_unsubscribes(reader: Reader) -> None:
    reader.page.evaluate("window.openGlobal()")
    assert reader.page.evaluate("window.subscribed") == [
        {"channel": "chat", "isGlobal": False, "options": {"replaySeconds": 60}},
        {"channel": "news", "isGlobal": True, "options": None},
    ]
    reader.page.evaluate("window.subscription.unsubscribe()")
    assert len(reader.page.evaluate("window.subscribed")) == 1


def test_text_grows(reader: Reader) -> None:
    reader.give(envelope(0, "Hel", updates=3), envelope(1, "lo", updates=2), envelope(2, end=True, updates=0))
    of = {"stream": ID, "merge": "append"}
    assert reader.seen == [
        ["onUpdate", {**of, "seq": 0, "data": "Hel", "value": "Hel", "updates": 3}],
        ["onUpdate", {**of, "seq": 1, "data": "lo", "value": "Hello", "updates": 2}],
        ["onEnd", {**of, "seq": 2, "value": "Hello", "error": None, "stopped": None}],
    ]


@pytest.mark.parametrize(
    ("merge", "data"), [("latest", [{"done": 1}, None, 0]), ("reduce", [1, 2, 3]), ("batch", [[1, 2], [], ["x"]])]
)
def test_value_that_is_not_text_is_that_of_the_last_update(reader: Reader, merge: str, data: list[Any]) -> None:
    reader.give(*(envelope(seq, each, merge=merge) for seq, each in enumerate(data)))
    reader.give(envelope(3, data[0], merge=merge, end=True))
    updates = [event for handler, event in reader.seen if handler == "onUpdate"]
    assert [event["data"] for event in updates] == [event["value"] for event in updates] == [*data, data[0]]
    name, event = reader.seen[-1]
    assert (name, event["seq"], event["merge"], event["value"]) == ("onEnd", 3, merge, data[0])


def test_vectors_of_the_envelope_hold(reading: Page) -> None:
    for name, vector in VECTORS.items():
        reader, now = Reader(reading, vector.get("fetch", {})), 0
        for event in vector["events"]:
            reader.wait(event["at"] - now)
            now = event["at"]
            reader.give(json.dumps(event["payload"]))
        reader.wait(vector["until"] - now)
        assert reader.seen == vector["calls"], name


def test_fetched_value_that_comes_too_late_is_ignored(reading: Page) -> None:
    reader = Reader(reading, {"digest-1": "ab"})
    named = {"at": 2, "updates": 2, "digest": "digest-1"}
    reader.give(envelope(1, "b", snapshot=named), *letters(0, 2))
    reader.wait(HOLD)
    reader.give(*letters(2, 3))
    assert reader.text == "abcd"


def test_bridge_may_parse_payloads_or_not(reader: Reader) -> None:
    reader.give(letters(0)[0], json.loads(letters(1)[0]), *letters(0, 1))
    assert reader.text == "ab"


def test_duplicates_are_dropped_even_after_the_end(reader: Reader) -> None:
    reader.give(*letters(0, 0, 1, 0, 1), envelope(2, end=True), *letters(0, 1), envelope(2, end=True), *letters(7))
    reader.wait(2 * HOLD)
    assert reader.text == "ab."


def test_early_update_waits_for_those_before_it(reader: Reader) -> None:
    reader.give(*letters(0, 3, 2, 2, 3))
    assert reader.text == "a"
    reader.wait(HOLD - 1)
    assert reader.text == "a"
    reader.give(*letters(1))
    assert reader.text == "abcd"
    reader.wait(2 * HOLD)
    assert reader.text == "abcd"


def test_missing_updates_are_reported_after_a_while(reader: Reader) -> None:
    reader.give(*letters(0, 3))
    reader.wait(HOLD // 2)
    reader.give(*letters(4, 6))
    reader.wait(HOLD // 2)
    assert reader.text == "a[1-2]de"
    # Later updates wait just as long.
    reader.wait(HOLD // 2 - 1)
    assert reader.text == "a[1-2]de"
    reader.wait(1)
    assert reader.text == "a[1-2]de[5-5]g"
    reader.give(*letters(1, 5), *letters(7))
    assert reader.text == "a[1-2]de[5-5]gh"


def test_late_page_learns_that_the_beginning_is_missing(reader: Reader) -> None:
    reader.give(*letters(4, 5))
    assert reader.seen == []
    reader.wait(HOLD)
    assert reader.text == "[0-3]ef"


def test_early_end_waits_too(reader: Reader) -> None:
    reader.give(envelope(2, "c", end=True), *letters(0))
    assert reader.text == "a"
    reader.give(*letters(1))
    assert reader.text == "abc."


def test_at_most_1000_updates_wait(reader: Reader) -> None:
    reader.give(*(envelope(seq, "x") for seq in range(1, 1001)))
    assert reader.seen == []
    reader.give(envelope(1001, "y"))
    assert reader.text == f"[0-0]{'x' * 1000}y"


def test_streams_on_one_channel_are_separate(reader: Reader) -> None:
    first, second = letters(0, 2, 1), letters(0, 1, 3, stream=OTHER)
    reader.give(*(each for pair in zip(first, second, strict=True) for each in pair))
    values = {event["stream"]: event["value"] for _, event in reader.seen}
    assert values == {ID: "abc", OTHER: "ab"}
    reader.wait(HOLD)
    assert [event for handler, event in reader.seen if handler == "onGap"] == [{"stream": OTHER, "from": 2, "to": 2}]


def test_last_streams_are_remembered(reader: Reader) -> None:
    reader.give(*letters(0))
    reader.give(*(envelope(0, "x", stream=str(number)) for number in range(999)))
    reader.give(*letters(1), envelope(0, "y", stream="one more"), *letters(1, 2))
    of_it = [event["value"] for handler, event in reader.seen if event["stream"] == ID]
    assert of_it == ["a", "ab", "abc"]
    # The one without news for longest was given up.
    assert gaps(reader) == ["0: 1-Infinity"]
    before = len(reader.seen)
    reader.give(envelope(0, "x", stream="0"), envelope(1, "z", stream="0"))
    reader.wait(HOLD)
    assert len(reader.seen) == before


def gaps(reader: Reader) -> list[str]:
    script = "window.seen.filter(([name]) => name === 'onGap').map(([, gap]) => `${gap.stream}: ${gap.from}-${gap.to}`)"
    found: list[str] = reader.page.evaluate(script)
    return found


def test_streams_that_ended_are_forgotten_before_those_that_did_not(reader: Reader) -> None:
    reader.give(*letters(0))
    # Made in the page: Playwright takes half a minute to pass so many.
    give_all = "text => { for (let n = 0; n < 10_000; n++) window.give(text.replace('NUMBER', n)); }"
    reader.page.evaluate(give_all, envelope(0, "x", stream="NUMBER", end=True))
    reader.page.evaluate("() => { window.seen = []; }")
    reader.give(*letters(0, 1), envelope(2, end=True, updates=0))
    assert reader.text == "b."
    assert reader.seen[-1][1]["value"] == "ab"
    # The streams that ended are remembered, up to 10,000.
    reader.give(*letters(0, 1), envelope(0, "x", stream="1", end=True))
    assert reader.text == "b."
    reader.give(envelope(0, "x", stream="0", end=True))
    assert reader.text == "b.x."


def test_stream_that_is_given_up_shows_and_reports_what_waits(reader: Reader) -> None:
    reader.give(envelope(0, "a"), envelope(2, "c", end=True), envelope(0, "a", stream=OTHER))
    reader.give(*letters(2, stream=OTHER))
    reader.give(*(envelope(0, "x", stream=str(number)) for number in range(1_000)))
    of_it = [[handler, event["seq"] if "seq" in event else event["from"]] for handler, event in reader.seen]
    shown = [each for each, (_, event) in zip(of_it, reader.seen, strict=True) if event["stream"] == ID]
    assert shown == [["onUpdate", 0], ["onGap", 1], ["onUpdate", 2], ["onEnd", 2]]
    assert gaps(reader) == [f"{ID}: 1-1", f"{OTHER}: 1-1", f"{OTHER}: 3-Infinity"]
    # No timer is left.
    before = len(reader.seen)
    reader.wait(2 * HOLD)
    assert len(reader.seen) == before


def test_payload_that_is_not_an_envelope_is_ignored(reader: Reader) -> None:
    reader.give(*NO_ENVELOPES, *[json.loads(text) for text in NO_ENVELOPES if is_json(text)], None)
    reader.wait(2 * HOLD)
    assert reader.seen == []


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def test_handler_that_throws_is_reported_and_stops_nothing(reader: Reader) -> None:
    errors: list[str] = []
    reader.page.on("pageerror", lambda error: errors.append(error.message))
    reader.page.evaluate(
        "window.open({ onUpdate: ({ data }) => { window.seen.push(data); throw new Error(`no ${data}`); } })"
    )
    reader.give(*letters(1, 0), envelope(2, end=True))
    assert reader.seen == ["a", "b"]
    reader.page.wait_for_function("true")
    assert errors == ["no a", "no b"]


def test_no_handler_is_called_after_unsubscribing(reader: Reader) -> None:
    reader.give(*letters(0, 2))
    reader.page.evaluate("window.subscription.unsubscribe()")
    reader.give(*letters(1, 3))
    reader.wait(2 * HOLD)
    assert reader.text == "a"
    reader.page.evaluate(
        """window.open({
            onUpdate: ({ data }) => { window.seen.push(data); window.subscription.unsubscribe(); },
            onEnd: () => window.seen.push("end"),
        })"""
    )
    reader.give(*letters(1), envelope(0, "a", end=True))
    assert reader.seen == ["a"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 12), max_size=20), st.randoms(use_true_random=False))
def test_each_update_is_shown_once_and_in_order(reading: Page, seqs: list[int], chance: random.Random) -> None:
    reader = Reader(reading)
    reader.give(*letters(*seqs))
    reader.wait(HOLD)
    shown = ""
    for last, seq in pairwise([-1, *sorted(set(seqs))]):
        shown += (f"[{last + 1}-{seq - 1}]" if seq > last + 1 else "") + chr(ord("a") + seq)
    assert reader.text == shown


# With the official bridge.


@pytest.fixture
def emulator(site: Site) -> Iterator[Emulator]:
    with Emulator(origins=[site.origin], settings=Settings(limit=None)) as emulator:
        yield emulator


@pytest.fixture
def api(emulator: Emulator, api_of: Callable[[Emulator], Api]) -> Api:
    return api_of(emulator)


@pytest.fixture
def page(site: Site, emulator: Emulator, open_page: Callable[[str], Page]) -> Page:
    return open_page(f"{site.origin}{site.page(f'{emulator.url}/bridge.js', 'stream_page.js')}")


def follow(page: Page, channel: str, **options: Any) -> None:
    page.evaluate("arguments => window.follow('it', ...arguments)", [channel, options])


def seen(page: Page, count: int) -> list[tuple[str, Any]]:
    """Wait for this number of handler calls, and return their arguments."""
    page.wait_for_function("count => window.seen.it.length >= count", arg=count)
    brought = {"onUpdate": "value", "onEnd": "error", "onGap": "to"}
    return [(handler, event.get(brought[handler])) for handler, event in page.evaluate("window.seen.it")]


def test_retried_publishes_are_shown_once(page: Page, emulator: Emulator, channel: str) -> None:
    follow(page, channel)
    with RealtimeClient(emulator.url) as client:
        live = client.for_invocation({"x-forge-invocation-id": "invocation-123"})
        for payload in letters(0, 1, 2):
            emulator.fail_next(status=500, delivered=True)
            live.publish(channel, payload)
        live.publish(channel, {"another": "event"})
        live.publish(channel, envelope(3, end=True))
    assert [stream.duplicates for stream in emulator.streams] == [3]
    assert seen(page, 4) == [("onUpdate", "a"), ("onUpdate", "ab"), ("onUpdate", "abc"), ("onEnd", None)]


def test_stream_of_the_client_is_shown_exactly_despite_faults(page: Page, emulator: Emulator, channel: str) -> None:
    chance = random.Random(7)
    words = [chance.choice('aß🙂"\n') + f"{number} " for number in range(600)]
    faults: list[dict[str, Any]] = [
        {"status": 500, "delivered": True},
        {"answer": "reset", "delivered": True},
        {"answer": "truncated", "delivered": True},
        {"status": 503},
        {"status": 429},
        {"answer": "reset"},
    ]
    follow(page, channel)
    retry = RetryPolicy(backoff_initial=0.001, backoff_max=0.01)
    with RealtimeClient(emulator.url, retry=retry) as client:
        live = client.for_invocation({"x-forge-invocation-id": "invocation-123"})
        with (
            live.stream(channel, interval=0, max_bytes=64) as stream,
            live.stream(channel, merge="latest", interval=0) as other,
        ):
            for number, word in enumerate(words):
                stream.send(word)
                other.send(number)
                if number % 30 == 0:
                    emulator.fail_next(**chance.choice(faults))
    page.wait_for_function("window.seen.it.filter(([handler]) => handler === 'onEnd').length === 2")
    ends = {event["merge"]: event["value"] for handler, event in page.evaluate("window.seen.it") if handler == "onEnd"}
    assert ends == {"append": "".join(words), "latest": 599}
    assert "onGap" not in [handler for handler, _ in page.evaluate("window.seen.it")]
    assert {stream.merge: stream.value for stream in emulator.streams} == ends
    assert [stream.updates for stream in emulator.streams] == [600, 600]
    assert sum(stream.duplicates for stream in emulator.streams) > 0


def test_loss_is_reported_and_the_stream_continues(page: Page, api: Api, channel: str) -> None:
    follow(page, channel)
    for payload in letters(0, 3, 4):
        api.publish(channel, payload)
    assert seen(page, 4) == [("onUpdate", "a"), ("onGap", 2), ("onUpdate", "ad"), ("onUpdate", "ade")]


def test_reloaded_page_gets_the_whole_stream_by_replay(page: Page, api: Api, channel: str) -> None:
    api.emulator.change(keep_unheard=True)
    follow(page, channel)
    for payload in letters(0, 1):
        api.publish(channel, payload)
    assert seen(page, 2)[-1] == ("onUpdate", "ab")
    page.reload()
    for payload in letters(2, 2):
        api.publish(channel, payload)
    follow(page, channel, replaySeconds=60)
    api.publish(channel, envelope(3, "d", end=True, error={"type": "TimeoutError"}))
    assert seen(page, 5) == [
        *(("onUpdate", text) for text in ("a", "ab", "abc", "abcd")),
        ("onEnd", {"type": "TimeoutError"}),
    ]
    page.reload()
    follow(page, channel)
    api.publish(channel, letters(4)[0])
    assert seen(page, 2) == [("onGap", 3), ("onUpdate", "e")]


def test_global_stream_is_received(page: Page, api: Api, channel: str) -> None:
    follow(page, channel, isGlobal=True)
    api.publish(channel, letters(0)[0])
    api.publish_global(channel, envelope(0, {"done": 1}, merge="latest"))
    assert seen(page, 1) == [("onUpdate", {"done": 1})]
    page.evaluate("window.unfollow('it')")
    api.publish_global(channel, envelope(1, {"done": 2}, merge="latest"))
    assert not api.emulator.events[-1].delivered
    assert len(seen(page, 1)) == 1


def test_refused_subscription_rejects(page: Page, channel: str) -> None:
    with pytest.raises(Error, match="INVALID_TOKEN"):
        follow(page, channel, token="nonsense")


# The shipped files.


@pytest.mark.parametrize("name", ["streams.js", "streams.d.ts"])
def test_emulator_serves_the_module_of_the_wheel(own: Api, name: str) -> None:
    response = own.get(f"/{name}")
    assert response.content == (SHIPPED / name).read_bytes()
    assert response.headers["content-type"].startswith("text/javascript")


def test_types_match_the_exports_and_only_the_bridge_is_imported() -> None:
    module, types = ((SHIPPED / name).read_text(encoding="utf-8") for name in ("streams.js", "streams.d.ts"))
    exported = re.findall(r"^export (?:function|const|class) (\w+)", module, re.MULTILINE)
    assert exported == ["onStream", "onGlobalStream"]
    # An overload of `onStream` takes a handle.
    assert [*dict.fromkeys(re.findall(r"^export declare function (\w+)", types, re.MULTILINE))] == exported
    assert re.findall(r"^import .*", module, re.MULTILINE) == [
        'import { invokeService, realtime } from "@forge/bridge";'
    ]
    handlers = types.partition("interface StreamHandlers")[2].partition("}")[0]
    assert set(re.findall(r"(on\w+)\?\(", handlers)) == set(re.findall(r'call\("(\w+)"', module))


# The compiler must reject each line with `wrong`.
TYPED = """
import { type StreamHandle, type StreamUpdate, onGlobalStream, onStream } from "./streams";
import { useForgeStream } from "./use-forge-stream";

export async function show(): Promise<string[]> {
  const texts: string[] = [];
  const subscription = await onStream<{ done: number }>(
    "chat",
    {
      onUpdate(update: StreamUpdate<{ done: number }>) {
        if (update.merge === "append") texts.push(update.value.toUpperCase());
        else if (update.merge === "batch") texts.push(...update.data.map((item) => `${item.done}`));
        else texts.push(update.value.done.toFixed());
        texts.push(update.done); // wrong
      },
      onEnd: ({ error, stopped, seq }) => texts.push(error?.message ?? error?.type ?? stopped?.by ?? `${seq}`),
      onGap: ({ stream, from, to }) => texts.push(`${stream} ${to - from}`),
      fetchValue: async ({ stream, digest }) => (await fetch(`/${stream}/${digest}`)).text(),
    },
    { replaySeconds: 60, token: "x" },
  );
  await onGlobalStream("news", {});
  await onGlobalStream("news", { onMessage() {} }); // wrong
  await onStream("news", {}, { replay: 60 }); // wrong
  await onStream("news"); // wrong
  await subscription.cancel(); // wrong
  const handle: StreamHandle = JSON.parse(texts[0]);
  const own = await onStream(handle, {}, { replaySeconds: 60, renew: async ({ stream }) => (stream ? handle : null) });
  const stopped: boolean = await own.cancel("enough");
  await onStream(handle, {}, { token: "x" }); // wrong
  await onStream({ channel: "news" }, {}); // wrong
  await subscription.unsubscribe();
  return texts;
}

export function Answer(handle: StreamHandle | undefined) {
  const { value, status, complete, error, stopped, cancel } = useForgeStream(handle, { replaySeconds: 60 });
  const text: string | undefined = value;
  const { value: parts } = useForgeStream<{ text: string }[]>("chat", { contextOverrides: [] });
  const number: number = value; // wrong
  useForgeStream(handle, { token: "x" }); // wrong
  if (status === "finished") return text; // wrong
  return [parts?.[0].text, complete, error?.type, error?.message, stopped?.by, cancel("enough")];
}
"""


@pytest.mark.timeout(300)
def test_types_check_in_a_typescript_app(site: Site, tmp_path: Path) -> None:
    for name in ("streams.d.ts", "use-forge-stream.d.ts"):
        (tmp_path / name).write_bytes((SHIPPED / name).read_bytes())
    expecting = re.sub(r"^(.*)// wrong$", r"// @ts-expect-error\n\1", TYPED, flags=re.MULTILINE)
    (tmp_path / "page.ts").write_text(expecting, encoding="utf-8")
    options = {
        "strict": True,
        "noEmit": True,
        "module": "esnext",
        "moduleResolution": "bundler",
        "lib": ["es2022", "dom"],
    }
    options |= {"target": "es2022", "types": [], "skipLibCheck": False}
    settings = {"compilerOptions": options, "files": ["page.ts"]}
    (tmp_path / "tsconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    site.check_types(tmp_path)
