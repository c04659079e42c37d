// The page as a whole: its state in the address, its keys, and the line between the feed and the list.

import { $, copy, formatAhead, make, makeButton, makeSnippet, plural, setText } from "./dom.js";
import { Calls, matcherOf, NO_FILTER } from "./calls.js";
import { closePanel, drawPanels, installationsOf, openPanel, percent, togglePanel } from "./panels.js";
import { Detail, load } from "./detail.js";
import { List } from "./list.js";
import { follow } from "./feed.js";

const SEARCH_DELAY = 200; // milliseconds after the last key
const HISTORY = 10000; // calls

const calls = new Calls();
const filters = $("filters");
let filter = { ...NO_FILTER };
let found = new Set(); // calls whose text was found by the emulator
let state = null;
let pending = []; // records that have come since the list was last drawn
let past = null; // what there was before, as soon as it is here
let waiting = null; // for that
let cleared = null; // the row up to which none are shown
let paused = false;
let drawing = false;
let wanted = null; // the row that the address names, until it is there

const detail = new Detail({ closed: onClosed, opened: openRow, stateOf: () => state });
const list = new List({
  opened: ({ row, child }) => (row.kind === "stream" && child ? openRow(child) : openRow(row, child)),
  moved: ({ row, child }) => detail.isOpen && (row.kind === "stream" && child ? openRow(child) : openRow(row, child)),
});
list.changed = draw;
list.lacking = complete;

/* Drawing: once for a frame, however much has come. */

function draw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    if (!paused) take();
    drawRows();
    drawPause();
    if (state) drawFacts();
  });
}

function take() {
  if (waiting) return;
  if (past) {
    calls.clear();
    for (const record of past) calls.take(record);
    past = null;
    // Unless it is another run of the emulator, whose numbers begin anew.
    if (cleared && endOf(cleared.id) !== cleared.end) cleared = null;
  }
  for (const record of pending) calls.take(record);
  pending = [];
  if (state) calls.takeStreams(state.streams);
  calls.settle();
}

const endOf = (id) => calls.byId.get(id)?.attempts.at(-1)?.at ?? null;

/** Reads what there was before. What comes meanwhile waits. */
async function readHistory() {
  const asked = (waiting = Symbol());
  pending = [];
  let records = [];
  try {
    const response = await fetch(`/_emulator/calls?limit=${HISTORY}`);
    if (response.ok) records = (await response.json()).calls.reverse();
  } catch {
    // The feed has the newest ones.
  }
  if (waiting !== asked) return;
  waiting = null;
  past = records;
  draw();
}

function drawRows() {
  const matches = matcherOf(filter, found);
  const all = calls.list().filter((row) => !cleared || row.id > cleared.id);
  const rows = all.filter(matches);
  list.holds = detail.isOpen;
  list.show(rows);
  setText($("count"), rows.length === all.length ? plural(all.length, "row") : `${rows.length.toLocaleString("en")} of ${plural(all.length, "row")}`);
  $("unfilter").hidden = rows.length === all.length && isPlain();
  drawEmpty(all.length, rows.length);
  drawOptions(all);
  if (calls.byId.has(wanted)) openRow(calls.byId.get(wanted));
  detail.refresh();
}

function drawPause() {
  $("pause").setAttribute("aria-pressed", String(paused));
  setText($("pause"), !paused ? "Pause" : `Resume${pending.length ? ` (${pending.length.toLocaleString("en")} new)` : ""}`);
}

function drawEmpty(all, shown) {
  const empty = $("empty");
  const kind = shown ? "" : all ? "filtered" : cleared ? "cleared" : "first";
  if (empty.dataset.kind === kind) return;
  empty.dataset.kind = kind;
  empty.hidden = !kind;
  if (kind === "filtered") empty.replaceChildren(make("h3", "", "No call matches"), makeButton("", "Reset filters", unfilter));
  else if (kind === "cleared") empty.replaceChildren(make("h3", "", "Cleared"), make("p", "", "New calls appear here."), makeButton("", "Show all again", unclear));
  else if (kind === "first") empty.replaceChildren(...makeFirst());
  else empty.replaceChildren();
}

function makeFirst() {
  const curl = `curl ${location.origin}/forge/realtime/v1/publish \\\n  -H 'forge-proxy-authorization: Forge as=app,id=invocation-123' \\\n  -H 'Content-Type: application/json' \\\n  -d '{"name": "board-42", "payload": "hello"}'`;
  return [
    make("h3", "", "No calls yet"),
    make(
      "ol",
      "",
      make("li", "", "Point your service at the emulator:", makeSnippet(`export FORGE_EGRESS_PROXY_URL=${location.origin}`)),
      make("li", "", "Or make a first call:", makeSnippet(curl)),
      make("li", "", make("span", "", "Or press ", make("kbd", "", "p"), " to publish from here, and ", make("kbd", "", "?"), " to see all keys.")),
    ),
  ];
}

/** What can be chosen in the filters: what there is, and what is chosen. */
function drawOptions(rows) {
  const known = { operation: new Set(), channel: new Set(), installation: new Set(state ? installationsOf(state) : []) };
  for (const row of rows) {
    known.operation.add(row.operation);
    if (row.kind !== "invoke" && row.channel) known.channel.add(row.channel);
    if (row.installation) known.installation.add(row.installation);
  }
  const first = { operation: "Any operation", channel: "Any channel", installation: "Any installation" };
  for (const [name, values] of Object.entries(known)) {
    if (filter[name]) values.add(filter[name]);
    const select = filters[name];
    const sorted = [...values].sort().slice(0, 500);
    const text = JSON.stringify(sorted);
    if (select.dataset.drawn === text || select === document.activeElement) continue;
    select.dataset.drawn = text;
    select.replaceChildren(new Option(first[name], ""), ...sorted.map((value) => new Option(value, value)));
    select.value = filter[name];
  }
}

/** What holds for the emulator as a whole; each opens the panel that it belongs to. */
function drawFacts() {
  const { faults, clock, replayed, live, rates, settings } = state;
  const chaos = faults.filter((fault) => fault.probability !== undefined);
  const armed = faults.length - chaos.length;
  const rate = Math.max(0, ...Object.values(rates));
  // The last ones are seen where there is no room for all.
  const facts = [
    ["contexts", "calm", plural(live.subscribers, "subscriber")],
    ["contexts", `calm${settings.limit !== null && rate >= settings.limit * 0.8 ? " on" : ""}`, settings.limit === null ? `${rate} /s` : `${rate} of ${settings.limit} /s`],
    replayed && ["settings", "on", "Replayed recording"],
    clock && ["clock", "on", `Clock +${formatAhead(clock)}`],
    armed && ["faults", "on", `${plural(armed, "fault")} armed`],
    ...chaos.map((fault) => ["faults", "on chaos", `Chaos ${percent(fault.probability)}, seed ${fault.seed}`]),
  ].filter(Boolean);
  const text = JSON.stringify(facts);
  if ($("facts").dataset.drawn === text) return;
  $("facts").dataset.drawn = text;
  const focused = [...$("facts").children].indexOf(document.activeElement);
  $("facts").replaceChildren(...facts.map(([panel, className, label]) => makeButton(className, label, () => togglePanel(panel))));
  $("facts").children[focused]?.focus();
}

/** Asks for the first attempts of a call, of which the past has the last one only. */
async function complete(row) {
  const records = await load(row.id);
  for (const { request, response, event, ...record } of records ?? []) calls.takeAttempt(record);
  draw();
}

/* Details */

function openRow(row, child) {
  wanted = null;
  const inList = row.parent ?? row;
  if (list.current === null || !list.current.startsWith(inList.key)) list.current = inList.key;
  detail.open(row, child);
  write();
  draw();
}

function onClosed() {
  wanted = null;
  write();
  draw();
  $("calls").focus({ preventScroll: true });
}

/* Filters, in the address */

const isPlain = () => Object.values(filter).every((value) => !value);

function setFilter(change) {
  filter = { ...filter, ...change };
  for (const [name, value] of Object.entries(filter)) {
    const field = filters[name];
    if (field.type === "checkbox") field.checked = value === "hide";
    else if (field.tagName === "SELECT") {
      if (value && ![...field.options].some((option) => option.value === value)) field.append(new Option(value, value));
      field.value = value;
    } else if (field.value !== value) field.value = value;
  }
  search();
  write();
  draw();
}

function write() {
  const parts = new URLSearchParams(Object.entries(filter).filter(([, value]) => value));
  if (detail.isOpen) parts.set("call", String(detail.row.id));
  else if (wanted !== null) parts.set("call", String(wanted));
  const hash = parts.toString();
  if (hash !== location.hash.slice(1)) history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
}

function read() {
  const parts = new URLSearchParams(location.hash.slice(1));
  wanted = /^\d+$/.test(parts.get("call") ?? "") ? Number(parts.get("call")) : null;
  setFilter(Object.fromEntries(Object.keys(NO_FILTER).map((name) => [name, parts.get(name) ?? ""])));
}

function unfilter() {
  setFilter(NO_FILTER);
  filters.text.focus();
}

function unclear() {
  cleared = null;
  draw();
}

let searching;

/** Asks the emulator for calls whose payload has the text beyond what the feed has of it. */
function search() {
  clearTimeout(searching);
  const text = filter.text.trim().replace(/^"(.*)"$/, "$1");
  found = new Set();
  if (text.length < 3 || /^[1-5](\d\d|xx)$/i.test(filter.text.trim())) return;
  searching = setTimeout(async () => {
    try {
      const response = await fetch(`/_emulator/calls?${new URLSearchParams({ text, limit: String(HISTORY) })}`);
      if (!response.ok) return;
      const { calls: listed } = await response.json();
      if (filter.text.trim().replace(/^"(.*)"$/, "$1") !== text) return;
      found = new Set(listed.map((call) => call.call ?? call.id));
      draw();
    } catch {
      // What the feed has is filtered all the same.
    }
  }, SEARCH_DELAY);
}

filters.onsubmit = (event) => event.preventDefault();
filters.oninput = () => {
  const data = new FormData(filters);
  setFilter(Object.fromEntries(Object.keys(NO_FILTER).map((name) => [name, data.get(name) ?? ""])));
};
$("unfilter").onclick = unfilter;
$("more").onclick = () => $("more").setAttribute("aria-expanded", String($("more").getAttribute("aria-expanded") !== "true"));
addEventListener("hashchange", read);

/* Buttons and keys */

function togglePause() {
  paused = !paused;
  draw();
}

$("pause").onclick = togglePause;
$("clear").onclick = () => {
  take();
  const newest = calls.list()[0];
  cleared = newest ? { id: newest.id, end: endOf(newest.id) } : null;
  draw();
};
$("ask").onclick = () => $("help").showModal();
$("address").textContent = location.host;
$("address").onclick = () => copy(`export FORGE_EGRESS_PROXY_URL=${location.origin}`, $("address"), $("address"));
$("skip").onclick = (event) => {
  event.preventDefault();
  $("calls").focus();
};

const PANELS = { p: "publish", f: "faults", c: "contexts", t: "clock", s: "settings" };
const KEYS = {
  "/": () => filters.text.select(),
  "?": () => $("help").showModal(),
  " ": togglePause,
  r: () => detail.isOpen && detail.resend(),
};

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
  if (event.key === "Escape") {
    leave(event);
    return;
  }
  const isTyping = event.target.closest("input:not([type=checkbox], [type=radio]), select, textarea");
  const isPressing = event.key === " " && event.target.closest("button, a, summary, input");
  if (isTyping || isPressing) return;
  const act = PANELS[event.key] ? () => togglePanel(PANELS[event.key]) : KEYS[event.key];
  if (act) act();
  else if (["ArrowDown", "ArrowUp"].includes(event.key) && !event.target.closest(".panel, #detail")) {
    const isFirst = list.indexOf(list.current) < 0;
    $("calls").focus();
    if (!isFirst) list.press(event);
  } else return;
  event.preventDefault();
});

function leave(event) {
  if (openPanel()) closePanel();
  else if (event.target === filters.text && filters.text.value) setFilter({ text: "" });
  else if (event.target.closest("#filters")) $("calls").focus();
  else if (detail.isOpen) detail.close();
  else return;
  event.preventDefault();
}

/* Feed */

const SAID = { on: "Connected", off: "Disconnected, retrying", hidden: "Waiting" };

function showConnection(how) {
  if ($("connection").className === how) return;
  $("connection").className = how;
  $("connection").textContent = SAID[how];
}

read();
follow({
  started: readHistory,
  taken(record) {
    pending.push(record);
    if (pending.length > HISTORY) pending.shift();
    draw();
  },
  state(now) {
    state = now;
    drawPanels(now);
    draw();
  },
  shown: showConnection,
});
