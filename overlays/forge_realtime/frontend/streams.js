// Receives the streams that the container sends with `live.stream(…)`. Each update arrives once and in order.
//
// Copy this file and streams.d.ts into the front end. The app's bundler resolves the official package @forge/bridge.
//
// Each publish of a stream is a JSON object, its envelope, as docs/stream-envelope.md specifies it:
//
//     {"forgeStream": 2, "stream": "9f0c…", "merge": "append", "seq": 0, "data": "Hel", "updates": 3, "end": false, …}
//
// `seq` counts the updates of a stream from 0. An update that may not have arrived is sent again with the same number.
// `merge` says how `updates` updates became `data`: "append" concatenates text, "latest" keeps the newest value,
// "batch" collects a list, "reduce" uses the sender's own function. `snapshot` holds a part of the whole value, for
// pages that loaded late or lost an event. Other events on the channel are ignored.

import { invokeService, realtime } from "@forge/bridge";

const HOLD = 1000; // milliseconds that an event waits for missing ones
const LONGEST_HOLD = 60000; // milliseconds that it waits for a snapshot
const HELD_LIMIT = 1000; // waiting events per stream
const PARTS_LIMIT = 10000; // parts of a snapshot
const OPEN_LIMIT = 1000; // streams per subscription that have not ended
const DONE_LIMIT = 10000; // remembered ids of other streams, to drop repeated events
const STOP_TRIES = 8; // calls of the service to stop a stream, which may reach other replicas than the stream's
const STOP_PAUSE = [100, 3000]; // milliseconds before the second of them, doubled for each, and at most
const RENEW_PAUSE = [1000, 60000]; // the same between renewals of a token, if the page's clock takes it for expired
const LONGEST_TIMER = 2 ** 31 - 1; // milliseconds

const IS_DATA = new Map([
  ["append", (data) => typeof data === "string"],
  ["latest", () => true],
  ["batch", Array.isArray],
  ["reduce", () => true],
]);

const isCount = (value) => Number.isSafeInteger(value) && value >= 0;
const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const isText = (value) => typeof value === "string";
const isOptional = (is, value) => value === undefined || is(value);
const isError = (value) => isObject(value) && isText(value.type) && isOptional(isText, value.message);
const isStop = (value) => isObject(value) && isText(value.by) && isOptional(isText, value.reason);
const isPeriod = (value) => Number.isFinite(value) && value > 0;

function isSnapshot(value) {
  if (!(isObject(value) && isCount(value.at) && value.at > 0 && isCount(value.updates))) return false;
  if (value.digest !== undefined) return isText(value.digest);
  const { part, parts, text } = value;
  return isCount(part) && isCount(parts) && part < parts && parts <= PARTS_LIMIT && isText(text);
}

function envelopeOf(payload) {
  let event = payload;
  if (typeof payload === "string") {
    try {
      event = JSON.parse(payload);
    } catch {
      return null;
    }
  }
  const is =
    event?.forgeStream === 2 &&
    isText(event.stream) &&
    IS_DATA.has(event.merge) &&
    (event.seq === undefined ? event.snapshot !== undefined : isCount(event.seq) && isCount(event.updates)) &&
    typeof event.end === "boolean" &&
    isOptional(IS_DATA.get(event.merge), event.data) &&
    isOptional(isError, event.error) &&
    isOptional(isStop, event.stopped) &&
    isOptional(isPeriod, event.snapshotEvery) &&
    isOptional(isSnapshot, event.snapshot);
  return is ? event : null;
}

// `only` limits it to the stream with this id, and `ended` is called before the handler of its end.
function readerOf(handlers, only, ended) {
  const open = new Map(); // by id, most recent event last
  const done = new Set(); // ids, most recent event last
  let closed = false;

  // An exception in a handler is reported as uncaught, as in any event handler, and does not stop the stream.
  function call(name, event) {
    try {
      handlers[name]?.(event);
    } catch (error) {
      report(error);
    }
  }

  function report(error) {
    queueMicrotask(() => {
      throw error;
    });
  }

  function show(stream, event) {
    const { seq, merge, data, updates, end } = event;
    stream.next = seq + 1;
    if (data !== undefined) {
      stream.value = merge === "append" ? (stream.value ?? "") + data : data;
      stream.items += merge === "batch" ? data.length : 0;
      stream.updates += updates;
      call("onUpdate", { stream: stream.id, seq, merge, data, value: stream.value, updates });
    }
    if (!end) return;
    if (stream.complete || event.snapshotEvery === undefined) {
      finish(stream, seq, event);
    } else {
      // The final snapshot may still complete the value.
      stream.ending = event;
      stream.held.clear();
      stream.timer = setTimeout(finish, patience(event), stream, seq, event);
    }
  }

  const patience = ({ snapshotEvery = 0 }) => Math.min(HOLD + 2000 * snapshotEvery, LONGEST_HOLD);

  function finish(stream, seq, { merge, error, stopped }) {
    if (closed || !open.has(stream.id)) return;
    forget(stream);
    ended?.();
    call("onEnd", { stream: stream.id, seq, merge, value: stream.value, error, stopped });
  }

  function advance(stream, limit = HELD_LIMIT) {
    clearTimeout(stream.timer);
    while (!closed && stream.held.size > 0) {
      if (!stream.held.has(stream.next)) {
        const [oldest] = stream.held.values();
        const wait = oldest.until - performance.now();
        if (wait > 0 && stream.held.size <= limit) {
          stream.timer = setTimeout(advance, wait, stream);
          return;
        }
        const from = stream.next;
        stream.next = Math.min(...stream.held.keys());
        stream.complete = false;
        call("onGap", { stream: stream.id, from, to: stream.next - 1 });
      } else {
        const { event } = stream.held.get(stream.next);
        stream.held.delete(stream.next);
        show(stream, event);
      }
    }
  }

  function read(payload) {
    const event = envelopeOf(payload);
    if (closed || event === null) return;
    const id = event.stream;
    if (only !== undefined && id !== only) return;
    if (done.has(id)) {
      remember(id);
      return;
    }
    const stream = open.get(id) ?? {
      id,
      merge: event.merge,
      next: 0, // the first update that was not shown
      held: new Map(), // updates that came early
      value: undefined,
      updates: 0, // in the value
      items: 0, // of "batch"
      complete: true, // whether the value lacks nothing before `next`
      parts: undefined, // of the snapshot that is arriving
      ending: undefined, // the last event, which waits for the final snapshot
    };
    if (event.merge !== stream.merge) return;
    open.delete(id);
    open.set(id, stream);
    if (open.size > OPEN_LIMIT) giveUp(open.values().next().value);
    if (event.seq !== undefined) hold(stream, event);
    if (!closed && open.has(id) && event.snapshot !== undefined) collect(stream, event);
  }

  function hold(stream, event) {
    const { seq, merge, data } = event;
    if (stream.ending || seq < stream.next || stream.held.has(seq)) return;
    if (merge === "latest" && data !== undefined) dropBefore(stream, seq);
    stream.held.set(seq, { event, until: performance.now() + patience(event) });
    advance(stream);
  }

  function dropBefore(stream, next) {
    stream.next = next;
    for (const seq of stream.held.keys()) if (seq < next) stream.held.delete(seq);
  }

  // Gathers the parts of a snapshot, and takes it when it is whole.
  function collect(stream, event) {
    const { at, part, parts, text, digest } = event.snapshot;
    const ends = event.seq === undefined && event.end ? event : undefined;
    if (!isNews(stream, at)) {
      if (ends && at <= stream.next) finish(stream, at - 1, ends);
    } else if (digest !== undefined) {
      fetchValue(stream, event, ends);
    } else if (!(stream.parts?.at > at)) {
      const isSame = stream.parts?.at === at && stream.parts.parts === parts;
      if (!isSame) stream.parts = { at, parts, texts: new Map() };
      const { texts } = stream.parts;
      texts.set(part, text);
      if (texts.size < parts) return;
      stream.parts = undefined;
      const whole = Array.from({ length: parts }, (_, number) => texts.get(number)).join("");
      take(stream, event, ends, () => (event.merge === "append" ? whole : JSON.parse(whole)));
    }
  }

  const isNews = (stream, at) => (stream.complete ? at > stream.next : at >= stream.next);

  function fetchValue(stream, event, ends) {
    const { stream: id, merge } = event;
    const { at, digest } = event.snapshot;
    if (handlers.fetchValue === undefined || stream.fetching === digest) return;
    stream.fetching = digest;
    Promise.resolve({ stream: id, at, digest, merge })
      .then((named) => handlers.fetchValue(named))
      .then((value) => {
        if (!closed && open.get(id) === stream && isNews(stream, at)) take(stream, event, ends, () => value);
      })
      .catch(report)
      .finally(() => {
        stream.fetching = undefined;
      });
  }

  function take(stream, event, ends, valueOf) {
    const { merge } = event;
    const { at, updates } = event.snapshot;
    let value;
    if (updates > 0) {
      try {
        value = valueOf();
      } catch {
        return;
      }
      if (value === undefined || !IS_DATA.get(merge)(value)) return;
    }
    const { next, complete, items } = stream;
    const last = stream.held.get(at - 1)?.event;
    const shown = stream.value;
    const added = updates - stream.updates;
    dropBefore(stream, at);
    Object.assign(stream, { updates, complete: true });
    if (updates > 0 && (added > 0 || !complete)) {
      const whole = !complete || (merge === "reduce" && next > 0);
      let data = value;
      if (!whole && merge === "append") data = value.slice((shown ?? "").length);
      if (!whole && merge === "batch") data = value.slice(items);
      stream.value = merge === "append" ? value : data;
      stream.items = merge === "batch" ? value.length : 0;
      const shownNow = { stream: stream.id, seq: at - 1, merge, data, value: stream.value };
      call("onUpdate", { ...shownNow, updates: whole ? updates : added, ...(whole && { whole }) });
    }
    const end = ends ?? (last?.end ? last : stream.ending);
    if (end) finish(stream, at - 1, end);
    else advance(stream);
  }

  // Shows what waits. If the stream has not ended then, the rest is reported as a gap and ignored.
  function giveUp(stream) {
    advance(stream, 0);
    if (stream.ending) finish(stream, stream.next - 1, stream.ending);
    if (closed || !open.has(stream.id)) return;
    forget(stream);
    call("onGap", { stream: stream.id, from: stream.next, to: Infinity });
  }

  function forget(stream) {
    clearTimeout(stream.timer);
    stream.held.clear();
    open.delete(stream.id);
    remember(stream.id);
  }

  function remember(id) {
    done.delete(id);
    done.add(id);
    if (done.size > DONE_LIMIT) done.delete(done.values().next().value);
  }

  function close() {
    closed = true;
    for (const { timer } of open.values()) clearTimeout(timer);
  }

  return { read, close };
}

async function subscribeTo(subscribe, channel, handlers, options) {
  const reader = readerOf(handlers);
  const subscription = await subscribe(channel, reader.read, options);
  return {
    async unsubscribe() {
      reader.close();
      await subscription.unsubscribe();
    },
  };
}

const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

// Subscribes to the private stream of a handle. `renew` returns another handle for it, or null.
async function subscribeToPrivate(handle, handlers, { renew, ...options } = {}) {
  let over = false; // ended or unsubscribed
  let ended = false;
  let timer;
  let pause = RENEW_PAUSE[0];
  let subscription;

  const reader = readerOf(handlers, handle.stream, () => {
    ended = true;
    unsubscribe().catch(() => {});
  });
  const open = ({ channel, token }) => realtime.subscribeGlobal(channel, reader.read, { ...options, token });
  const left = () => (handle.expiresAt == null ? Infinity : 1000 * handle.expiresAt - Date.now());

  async function renewed() {
    const next = await renew(handle);
    if (next) handle = next;
    return Boolean(next);
  }

  function schedule() {
    const wait = 0.9 * left();
    // Neither if it is no number, because the app has changed it.
    if (over || !renew || !(wait < Infinity)) return;
    timer = setTimeout(refresh, Math.min(Math.max(wait, pause), LONGEST_TIMER));
    pause = wait > pause ? RENEW_PAUSE[0] : Math.min(2 * pause, RENEW_PAUSE[1]);
  }

  // Subscribes with another token before the first subscription ends: the reader drops what comes twice.
  async function refresh() {
    try {
      if (!(await renewed()) || over) return;
      const next = await open(handle);
      const former = over ? next : subscription;
      if (!over) subscription = next;
      await former.unsubscribe();
    } catch {
      // Tried again. The first subscription is still there.
    } finally {
      schedule();
    }
  }

  async function unsubscribe() {
    over = true;
    clearTimeout(timer);
    reader.close();
    const former = subscription;
    subscription = undefined;
    await former?.unsubscribe();
  }

  async function cancel(reason) {
    const { stream, stop } = handle;
    // `onClick={cancel}` passes an event.
    const body = JSON.stringify({ stream, secret: stop.secret, reason: isText(reason) ? reason : undefined });
    const headers = { "Content-Type": "application/json" };
    for (let tries = 0; tries < STOP_TRIES; tries++) {
      if (tries > 0) await sleep(Math.min(2 ** (tries - 1) * STOP_PAUSE[0], STOP_PAUSE[1]));
      if (ended) break;
      try {
        const response = await invokeService({ path: stop.path, method: "POST", headers, body });
        // Atlassian's documentation can be read as if the data came without `body`.
        if ((response?.body ?? response)?.stopped === true) return true;
      } catch {
        // Tried again.
      }
    }
    return ended;
  }

  if (renew && left() <= 0) await renewed();
  try {
    subscription = await open(handle);
  } catch (error) {
    // The platform's clock decides whether the token has expired.
    if (!renew || !(await renewed())) throw error;
    subscription = await open(handle);
  }
  if (over) await subscription.unsubscribe();
  else schedule();
  return { unsubscribe, cancel };
}

/** Subscribes to all streams of a channel, or to the private stream of a handle; see streams.d.ts. */
export function onStream(channelOrHandle, handlers, options) {
  if (typeof channelOrHandle === "string") return subscribeTo(realtime.subscribe, channelOrHandle, handlers, options);
  return subscribeToPrivate(channelOrHandle, handlers, options);
}

/** Subscribes to all streams of a global channel; see streams.d.ts. */
export function onGlobalStream(channel, handlers, options) {
  return subscribeTo(realtime.subscribeGlobal, channel, handlers, options);
}
