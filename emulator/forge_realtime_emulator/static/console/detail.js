// The pane at the side: all about one call, page's publish, page's call of the service, or stream.

import { $, copy, formatAhead, formatBytes, formatDuration, formatScope, formatTime, make, makeBar, makeButton, makeClose, makeSnippet, plural } from "./dom.js";
import { asCurl, asPython, asTest } from "./copies.js";
import { isJSON, makeText, makeTree } from "./payload.js";
import { mergeFactor, statusOf } from "./list.js";
import { toneOf } from "./calls.js";

const GAPS_SHOWN = 20;
const PUBLISHES_SHOWN = 200;
const VIA = { websocket: "WebSocket", sse: "Server-Sent Events", page: "page, by bridge.js" };

/**
 * @param closed called when the pane is closed
 * @param opened called with the number of a publish of the stream that is open
 * @param stateOf returns the last state of the emulator
 */
export class Detail {
  constructor({ closed, opened, stateOf }) {
    this.pane = $("detail");
    this.closed = closed;
    this.opened = opened;
    this.stateOf = stateOf;
    this.row = null;
    this.raw = false;
    this.copied = null;
  }

  get isOpen() {
    return this.row !== null;
  }

  /** Shows a row. A child is the attempt to begin with. */
  async open(row, child) {
    const isSame = this.row === row;
    this.row = row;
    this.chosen = child?.id ?? (isSame ? this.chosen : null);
    if (!isSame) this.copied = null;
    this.pane.hidden = false;
    if (row.kind === "stream") {
      this.records = null;
      this.drawStream();
      return;
    }
    const asked = (this.asked = Symbol());
    const records = await load(row.id);
    if (this.asked !== asked || this.row !== row) return;
    this.records = records;
    const top = isSame ? this.pane.scrollTop : 0;
    this.draw();
    this.pane.scrollTop = top;
  }

  /** Brings the pane up to date with its row. */
  refresh() {
    if (!this.row) return;
    const { row } = this;
    const now = row.kind === "stream" ? `${row.children.length} ${row.said?.written}` : `${row.attempts.length}`;
    if (this.drawn === `${row.key} ${now}`) return;
    this.drawn = `${row.key} ${now}`;
    this.open(row);
  }

  close() {
    this.row = this.records = this.drawn = null;
    this.pane.hidden = true;
    this.pane.replaceChildren();
    this.closed();
  }

  draw() {
    const { row, records } = this;
    if (records === null) {
      this.fill(row, [make("section", "", make("p", "hint", "The emulator has forgotten this call: it keeps the last 10,000."))]);
      return;
    }
    const last = records.at(-1);
    const record = records.find((one) => one.id === this.chosen) ?? last;
    const event = last.kind === "event" ? last : (records.findLast((one) => one.event)?.event ?? null);
    const payload = typeof last.payload === "string" ? last.payload : null;
    this.fill(row, [
      this.makeActions(records, event),
      ...makeReasons(last, event),
      this.makeFacts(row, record, event),
      ...(records[0].kind === "request" ? [this.makeTiming(records, record)] : []),
      ...(payload === null ? [] : [this.makePayload(payload)]),
      ...(event?.delivered ? [makeSubscribers(event)] : []),
      ...(record.request ? makeExchange(record) : []),
    ]);
  }

  fill(row, sections) {
    const name = row.channel ?? "";
    const kind = row.kind === "publish" ? `${row.operation} from a page` : row.operation;
    const heading = make("h2", "", make("small", "", kind), ` ${name}`);
    heading.id = "detail-title";
    heading.title = name;
    const focused = this.pane.contains(document.activeElement) ? document.activeElement.dataset.name : null;
    this.pane.replaceChildren(
      make("div", "top", make("div", "title", make("span", `mark ${row.tone}`, statusOf(row)), heading, makeClose(() => this.close()))),
      ...sections,
    );
    if (focused) this.pane.querySelector(`[data-name="${focused}"]`)?.focus({ preventScroll: true });
  }

  makeActions(records, event) {
    const last = records.at(-1);
    const said = make("output", "");
    said.setAttribute("role", "status");
    const resend = makeButton("primary", "Resend", () => this.resend(said));
    const actions = make("div", "actions");
    const result = make("div", "");
    const section = make("section", "", actions, said, result);
    const offer = (label, name, write) => {
      const button = makeButton("", label, () => {
        const text = write();
        this.copied = name;
        const snippet = makeSnippet(text);
        result.replaceChildren(snippet);
        copy(text, button, snippet.firstChild);
      });
      button.dataset.name = name;
      return button;
    };
    const state = this.stateOf();
    const given = { records, event, state, origin: location.origin };
    const python = asPython(given);
    if (last.kind !== "invoke") {
      resend.dataset.name = "resend";
      actions.append(resend);
    }
    actions.append(offer("Copy as curl", "curl", () => asCurl(given)));
    if (python) actions.append(offer("as Python", "python", () => python), offer("as a pytest case", "pytest", () => asTest(given)));
    return section;
  }

  async resend(said) {
    const output = said ?? this.pane.querySelector("output");
    if (!this.row || this.row.kind === "stream" || this.row.kind === "invoke") return;
    try {
      const response = await fetch(`/_emulator/calls/${this.row.id}/resend`, { method: "POST" });
      const result = await response.json();
      output.className = response.ok ? "good" : "bad";
      output.textContent = response.ok ? `Resent: ${result.status || "reset"}. It is the newest row.` : `${result.code}: ${result.message}`;
    } catch {
      output.className = "bad";
      output.textContent = "The emulator did not respond. Is it running?";
    }
  }

  makeFacts(row, record, event) {
    const authorization = record.authorization;
    const acts = authorization && ["as", "id", "installationId", "accountId"].filter((name) => authorization[name] !== null).map((name) => `${name}=${authorization[name]}`);
    const claims = event?.claims ?? null;
    const facts = [
      ["Time", new Date(row.at * 1000).toLocaleString(undefined, { dateStyle: "medium" }) + ` ${formatTime(row.at)}`],
      row.duration !== undefined && ["Duration", `${formatDuration(row.duration)}${row.attempts.length > 1 ? ` in ${plural(row.attempts.length, "attempt")}` : ""}`],
      row.installation && ["Installation", row.installation],
      formatScope(row) && ["Scope", formatScope(row)],
      claims && ["Claims", JSON.stringify(claims)],
      acts && ["Authorization", acts.join(", ") || "none"],
      record.kind === "request" && !authorization && ["Authorization", "no valid authorization header"],
      record.kind === "invoke" && record.invocation && ["Invocation", record.invocation],
      event && ["Event", event.eventId ?? "no id: nobody was subscribed"],
      event && ["Delivered to", event.delivered ? plural(event.delivered, "subscriber") : "nobody"],
    ];
    return make("section", "", makeList("facts", facts.filter(Boolean)));
  }

  makeTiming(records, chosen) {
    const begin = records[0].at - records[0].duration;
    const whole = Math.max(...records.map((one) => one.at)) - begin || 1;
    const rows = records.map((one, index) => {
      const track = make("span", `track ${toneOf(one)}`, make("span"));
      track.firstChild.style.left = `${((one.at - one.duration - begin) / whole) * 100}%`;
      track.firstChild.style.width = `${(one.duration / whole) * 100}%`;
      const button = makeButton(
        "quiet",
        "",
        () => {
          this.chosen = one.id;
          this.draw();
        },
      );
      button.dataset.name = `attempt-${one.id}`;
      button.setAttribute("aria-pressed", String(one === chosen));
      button.append(make("span", "hint", String(index + 1)), make("span", `mark ${toneOf(one)}`, statusOf({ ...one, kind: "call" })), track, make("span", "length", formatDuration(one.duration)));
      button.title = one.fault ? "made by a fault" : "";
      return button;
    });
    const heading = make("div", "heading", make("h3", "", records.length > 1 ? "Attempts" : "Timing"), records.some((one) => one.fault) && make("span", "tag warn", "by a fault"));
    return make("section", "", heading, make("div", "timing", ...rows));
  }

  makePayload(payload) {
    const size = formatBytes(new TextEncoder().encode(payload).length);
    const heading = make("div", "heading", make("h3", "", "Payload ", make("span", "hint", size)));
    const section = make("section", "", heading);
    if (!payload) {
      section.append(make("p", "hint", "Empty."));
      return section;
    }
    const hasTree = isJSON(payload);
    const body = make("div", "");
    const draw = () => body.replaceChildren(...(hasTree && !this.raw ? [makeTree(payload)] : makeText(payload, "Payload as published")));
    if (hasTree) {
      const toggle = makeButton("", "Raw", () => {
        this.raw = !this.raw;
        toggle.setAttribute("aria-pressed", String(this.raw));
        draw();
      });
      toggle.setAttribute("aria-pressed", String(this.raw));
      toggle.dataset.name = "raw";
      heading.append(toggle);
    }
    heading.append(makeButton("", "Copy", (event) => copy(payload, event.target, body)));
    draw();
    section.append(body);
    return section;
  }

  drawStream() {
    const { row } = this;
    const { said } = row;
    const sections = [];
    if (said) {
      const missing = said.gaps.slice(-GAPS_SHOWN).map(([first, last]) => (first === last ? String(first) : `${first} to ${last}`));
      if (said.error) sections.push(makeCallout("bad", "It ended with an error", said.error));
      if (missing.length) sections.push(makeCallout("warn", "Publishes are missing", `Number ${missing.join(", ")}. Were they rejected, or not sent?`));
      const facts = [
        ["Began", formatTime(row.at)],
        ["Duration", formatDuration(row.duration)],
        ["Merged", `${plural(said.updates, "update")} in ${plural(said.operations, "publish").replace(/publishs$/, "publishes")}: ${mergeFactor(said)} each`],
        ["Merge", said.merge],
        ["Stream", said.stream],
        ["Installation", row.installation ?? ""],
        ["Scope", formatScope(row)],
        said.claims && ["Claims", JSON.stringify(said.claims)],
        ["Delivered to", row.delivered ? plural(row.delivered, "subscriber") : "nobody"],
        said.duplicates > 0 && ["Duplicates", String(said.duplicates)],
      ];
      if (said.progress !== null) {
        const bar = makeBar("wide", said.progress);
        sections.push(make("section", "", make("div", "heading", make("h3", "", "Progress"), make("span", "", `${Math.round(said.progress * 100)} %`)), bar));
      }
      const text = said.length > said.shown.length ? `…${said.shown}` : said.shown;
      sections.push(make("section", "", make("div", "heading", make("h3", "", said.merge === "append" ? "Text so far " : "Value so far ", make("span", "hint", plural(said.length, "character")))), ...makeText(text, "So far")));
      sections.push(make("section", "", makeList("facts", facts.filter(Boolean))));
    }
    const shown = row.children.slice(-PUBLISHES_SHOWN).reverse();
    const head = make("tr", "", ...["", "Status", "Time", "Duration", "Attempts"].map((name) => make("th", "", name)));
    head.firstChild.textContent = "Publish";
    for (const cell of head.children) cell.scope = "col";
    const lines = shown.map((child) => {
      const open = makeButton("link", String(child.seq), () => this.opened(child));
      open.setAttribute("aria-label", `Open publish ${child.seq}`);
      return make("tr", "", make("td", "", open), make("td", "", make("span", `mark ${child.tone}`, statusOf(child))), make("td", "mono", formatTime(child.at)), make("td", "", child.duration === undefined ? "" : formatDuration(child.duration)), make("td", child.attempts.length > 1 ? "warn" : "", child.attempts.length ? String(child.attempts.length) : ""));
    });
    const more = row.children.length > shown.length && make("p", "hint", `The last ${PUBLISHES_SHOWN}.`);
    sections.push(make("section", "", make("h3", "", "Publishes"), make("table", "", make("thead", "", head), make("tbody", "", ...lines)), more));
    const top = this.pane.scrollTop;
    this.fill(row, sections);
    this.pane.scrollTop = top;
  }
}

/** All records of a call, or null if they are forgotten. */
export async function load(id) {
  try {
    const response = await fetch(`/_emulator/calls/${id}`);
    if (!response.ok) return null;
    const { attempts, event, invoke } = await response.json();
    return attempts.length ? attempts : [event ?? invoke];
  } catch {
    return null;
  }
}

function makeList(className, pairs) {
  const list = make("dl", className);
  for (const [name, value] of pairs) list.append(make("dt", "", name), make("dd", "", value));
  return list;
}

function makeCallout(tone, title, ...texts) {
  return make("section", "", make("div", `callout ${tone}`, make("strong", "", title), ...texts.map((text) => make("p", "", text))));
}

/** Why a call failed, and why nobody got its event. */
function makeReasons(last, event) {
  const reasons = [];
  if (last.code) {
    const said = [last.message, last.detail].filter((text) => text && text !== last.code);
    reasons.push(makeCallout(last.kind === "invoke" ? "bad" : toneOf(last), last.code, ...said));
  }
  if (event?.delivered === 0) {
    const misses = event.nearMisses.length ? event.nearMisses : ["Nobody was subscribed to a channel of this name. Open your app's page, or run: forge-realtime listen CHANNEL"];
    reasons.push(makeCallout("warn", "Nobody got it", ...misses));
  }
  return reasons;
}

function makeSubscribers(event) {
  const shown = event.subscribers.map((one) => {
    const how = [VIA[one.via] ?? one.via, one.invocation ? `as ${one.invocation}` : "in the default context", `subscribed ${formatAhead(Math.max(0, Math.round(event.at - one.since)))} before`];
    return make("li", "", make("span", "", how.join(", ")));
  });
  const more = event.delivered - shown.length;
  const list = make("ul", "", ...shown, more > 0 && make("li", "hint", `and ${more.toLocaleString("en")} more`));
  return make("section", "", make("h3", "", "Subscribers that got it ", make("span", "hint", String(event.delivered))), list);
}

/** The request and the response of one attempt, with their headers. */
function makeExchange(record) {
  const { request, response } = record;
  const body = response ? [makeHeaders(response.headers), ...makeBody(response.body, "Body of the response")] : [make("p", "hint", "None: a fault reset the connection.")];
  return [
    make("section", "", make("h3", "", "Request"), make("p", "mono", `${request.method} ${request.path}`), makeHeaders(request.headers), ...makeBody(request.body, "Body of the request")),
    make("section", "", make("h3", "", "Response ", record.status > 0 && make("span", `mark ${toneOf(record)}`, String(record.status))), ...body),
  ];
}

const makeHeaders = (headers) => makeList("headers", Object.entries(headers));

function makeBody(text, label) {
  if (!text) return [];
  return isJSON(text) ? [makeTree(text)] : makeText(text, label);
}
