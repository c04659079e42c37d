// The rows of the list, put together from the records of the feed.
//
// A row is a call with its attempts, a page's publish, a page's call of the service, or a stream with its publishes.

const ROWS = 10000;
const CHILDREN = 1000; // publishes of a stream

const STATUS_CLASSES = {
  __proto__: null, // its names come from the address
  "2xx": (row) => row.status >= 200 && row.status < 300,
  "4xx": (row) => row.status >= 400 && row.status < 500,
  "5xx": (row) => row.status >= 500,
  reset: (row) => row.status === 0,
  failed: (row) => row.tone === "bad" || row.tone === "warn",
};

export class Calls {
  constructor() {
    this.clear();
  }

  clear() {
    this.rows = new Map(); // by key, oldest first
    this.byId = new Map(); // rows, those of streams too, by number
    this.streams = new Map(); // what the state says of each stream, by key
    this.changed = new Set(); // streams that have grown
  }

  /** Takes a record of the feed. */
  take(record) {
    if (record.kind === "request") this.takeAttempt(record);
    else if (this.byId.has(record.id)) return;
    else if (record.kind === "invoke") this.add(makeInvoke(record), record);
    // The event of a call is known from the attempt that published it.
    else if (record.call === null) this.add(makePublish(record), record);
  }

  takeAttempt(record) {
    const known = this.byId.get(record.call);
    if (!known) {
      const call = makeCall(record);
      this.add(call, record);
      return;
    }
    if (known.attempts.some((attempt) => attempt.id === record.id)) return;
    known.attempts.push(record);
    known.attempts.sort((one, other) => one.id - other.id);
    update(known);
    if (known.parent) this.changed.add(known.parent);
  }

  add(row, record) {
    row.fresh = record.live;
    this.byId.set(row.id, row);
    if (record.stream) {
      const key = streamKey(record.stream.id, record);
      let stream = this.rows.get(key);
      if (!stream) {
        stream = { key, kind: "stream", id: row.id, children: [], at: row.at, operation: "stream", channel: row.channel, fresh: row.fresh };
        this.insert(stream);
      }
      row.parent = stream;
      stream.children.push(row);
      if (stream.children.length > CHILDREN) this.byId.delete(stream.children.shift().id);
      this.changed.add(stream);
    } else {
      this.insert(row);
    }
  }

  insert(row) {
    this.rows.set(row.key, row);
    if (this.rows.size <= ROWS) return;
    const [key, oldest] = this.rows.entries().next().value;
    this.rows.delete(key);
    for (const one of [oldest, ...(oldest.children ?? [])]) this.byId.delete(one.id);
  }

  /** Takes what the state says of the streams: their text, progress and gaps. */
  takeStreams(streams) {
    for (const stream of streams) {
      const key = streamKey(stream.stream, stream);
      const text = JSON.stringify(stream);
      if (this.streams.get(key)?.written === text) continue;
      this.streams.set(key, { ...stream, written: text });
      const row = this.rows.get(key);
      if (row) this.changed.add(row);
    }
  }

  /** Brings the rows of streams up to date. Call it before the rows are shown. */
  settle() {
    for (const stream of this.changed) updateStream(stream, this.streams.get(stream.key));
    this.changed.clear();
  }

  /** All rows, newest first. */
  list() {
    return [...this.rows.values()].sort((one, other) => other.id - one.id);
  }
}

const streamKey = (id, address) => JSON.stringify([id, address.installation, address.channel]);

function makeCall(record) {
  const row = { key: String(record.call), kind: "call", id: record.call, attempts: [record], operation: record.operation, channel: record.channel, payload: record.payload, bytes: record.bytes, seq: record.stream?.seq, stream: record.stream, isGlobal: record.isGlobal };
  update(row);
  return row;
}

function update(row) {
  const first = row.attempts[0];
  const last = row.attempts.at(-1);
  row.tries = last.attempt;
  row.at = first.at - first.duration;
  row.duration = last.at - row.at;
  row.status = last.status;
  row.code = last.code;
  row.why = whyOf(last);
  row.fault = row.attempts.some((attempt) => attempt.fault);
  row.installation = last.installation;
  row.scope = row.attempts.findLast((attempt) => attempt.scope)?.scope ?? null;
  row.delivered = row.attempts.findLast((attempt) => attempt.delivered !== null)?.delivered ?? null;
  row.tone = toneOf(last);
  row.text = textOf([row.channel, row.payload, row.code, row.why]);
}

function makePublish(record) {
  return {
    key: String(record.id), kind: "publish", id: record.id, attempts: [], at: record.at, operation: record.isGlobal ? "publish_global" : "publish", page: true, channel: record.channel, installation: record.installation, scope: record.scope,
    isGlobal: record.isGlobal, delivered: record.delivered, payload: record.payload, bytes: record.bytes, status: null, tone: "good", code: null, why: null, seq: record.stream?.seq, stream: record.stream, text: textOf([record.channel, record.payload]),
  };
}

function makeInvoke(record) {
  const why = record.code === null ? null : `${record.code}: ${record.message}`;
  const tone = record.code !== null || record.status >= 500 ? "bad" : record.status >= 400 ? "warn" : "good";
  const channel = `${record.method} ${record.path}`;
  return { key: String(record.id), kind: "invoke", id: record.id, attempts: [], at: record.at - record.duration, duration: record.duration, operation: "invoke", page: true, channel, status: record.status ?? 0, code: record.code, why, tone, delivered: null, text: textOf([channel, why]) };
}

/** What of a response is good, refused or broken. */
export function toneOf(attempt) {
  if (attempt.code === null) return "good";
  return attempt.status >= 200 && attempt.status < 500 && !(attempt.status === 200 && attempt.fault) ? "warn" : "bad";
}

function whyOf(attempt) {
  if (attempt.code === null) return null;
  const said = [attempt.message, attempt.detail].filter((text) => text !== null && text !== attempt.code);
  return [attempt.code, ...said].join(": ");
}

function updateStream(row, said) {
  const last = row.children.at(-1);
  const attempts = row.children.reduce((sum, child) => sum + Math.max(1, child.attempts.length), 0);
  row.said = said ?? null;
  row.end = row.children.reduce((latest, child) => Math.max(latest, child.at + (child.duration ?? 0)), 0);
  row.duration = row.end - row.at;
  row.tries = said?.operations ?? attempts;
  row.installation = last.installation;
  row.scope = row.children.findLast((child) => child.scope)?.scope ?? null;
  row.isGlobal = last.isGlobal;
  row.delivered = row.children.findLast((child) => child.delivered !== null)?.delivered ?? null;
  row.status = row.children.findLast((child) => child.status !== null)?.status ?? null;
  row.tone = !said?.ended ? "open" : said.error ? "bad" : "good";
  row.why = null;
  row.text = textOf([row.channel, said?.shown]);
}

const textOf = (parts) => parts.filter((part) => typeof part === "string").join("\n").toLowerCase();

/* Filters */

export const NO_FILTER = { text: "", status: "", operation: "", channel: "", installation: "", delivered: "", streams: "" };

/** Makes the function that says whether a row matches. A status in the text, such as 400 or 5xx, means the status.
 * `found` holds the numbers of calls whose text was found where the feed has cut it off. */
export function matcherOf(filter, found) {
  const words = filter.text.trim();
  const status = /^([1-5])(\d\d|xx)$/i.exec(words);
  const text = status ? "" : words.replace(/^"(.*)"$/, "$1").toLowerCase();
  const one = (row) =>
    (!filter.status || STATUS_CLASSES[filter.status]?.(row)) &&
    (!status || (status[2].toLowerCase() === "xx" ? Math.floor(row.status / 100) === Number(status[1]) : row.status === Number(words))) &&
    (!filter.operation || row.operation === filter.operation) &&
    (!filter.channel || row.channel === filter.channel) &&
    (!filter.installation || row.installation === filter.installation) &&
    (!filter.delivered || (row.delivered !== null && row.delivered > 0 === (filter.delivered === "true"))) &&
    (!text || row.text.includes(text) || found.has(row.id));
  return (row) => {
    if (row.kind !== "stream") return one(row);
    // A stream matches by what it is, or by one of its publishes.
    return filter.streams !== "hide" && (one(row) || row.children.some(one));
  };
}
