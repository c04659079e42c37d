// Receives the streams that the container sends with `live.stream(…)`. Each update arrives once and in order.
//
// Copy this file and streams.d.ts into the front end. The app's bundler resolves the official package @forge/bridge.
//
// Each publish of a stream is a JSON object, its envelope:
//
//     {"forgeStream": 1, "stream": "9f0c…", "seq": 0, "merge": "append", "data": "Hel", "updates": 3, "end": false}
//
// `seq` counts the publishes of a stream from 0. A publish that may not have arrived is sent again with the same
// number. `merge` says how `updates` updates became `data`: "append" concatenates text, "latest" keeps the newest
// value, "batch" collects a list, "reduce" uses the sender's own function. The last envelope has `end: true`, maybe no
// data, and in `error` the class of an error that ended the stream. Other events on the channel are ignored.

import { invokeService, realtime } from "@forge/bridge";

const HOLD = 1000; // milliseconds that an event waits for missing ones
const HELD_LIMIT = 100; // waiting events per stream
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
    event?.forgeStream === 1 &&
    typeof event.stream === "string" &&
    isCount(event.seq) &&
    isCount(event.updates) &&
    typeof event.end === "boolean" &&
    ["undefined", "string"].includes(typeof event.error) &&
    IS_DATA.has(event.merge) &&
    (event.data === undefined || IS_DATA.get(event.merge)(event.data));
  return is ? event : null;
}

function readerOf(handlers) {
  const open = new Map(); // by id, most recent event last
  const done = new Set(); // ids, most recent event last
  let closed = false;

  // An exception in a handler is reported as uncaught, as in any event handler, and does not stop the stream.
  function call(name, event) {
    try {
      handlers[name]?.(event);
    } catch (error) {
      queueMicrotask(() => {
        throw error;
      });
    }
  }

  function show(stream, { seq, merge, data, updates, end, error }) {
    const { id } = stream;
    stream.next = seq + 1;
    if (data !== undefined) {
      stream.value = merge === "append" ? (stream.value ?? "") + data : data;
      call("onUpdate", { stream: id, seq, merge, data, value: stream.value, updates });
    }
    if (end && !closed) {
      forget(stream);
      call("onEnd", { stream: id, seq, merge, value: stream.value, error });
    }
  }

  function advance(stream, patience = HELD_LIMIT) {
    clearTimeout(stream.timer);
    while (!closed && stream.held.size > 0) {
      if (!stream.held.has(stream.next)) {
        const [oldest] = stream.held.values();
        const wait = oldest.until - performance.now();
        if (wait > 0 && stream.held.size <= patience) {
          stream.timer = setTimeout(advance, wait, stream);
          return;
        }
        const from = stream.next;
        stream.next = Math.min(...stream.held.keys());
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
    if (done.has(id)) {
      remember(id);
      return;
    }
    const stream = open.get(id) ?? { id, next: 0, held: new Map(), value: undefined };
    open.delete(id);
    open.set(id, stream);
    if (open.size > OPEN_LIMIT) giveUp(open.values().next().value);
    if (event.seq < stream.next || stream.held.has(event.seq)) return;
    stream.held.set(event.seq, { event, until: performance.now() + HOLD });
    advance(stream);
  }

  // Shows what waits. If the stream has not ended then, the rest is reported as a gap and ignored.
  function giveUp(stream) {
    advance(stream, 0);
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

  const own = {
    onEnd(end) {
      ended = true;
      unsubscribe().catch(() => {});
      handlers.onEnd?.(end);
    },
  };
  const reader = readerOf(Object.assign(Object.create(handlers), own));
  const open = ({ channel, token }) => realtime.subscribeGlobal(channel, reader.read, { ...options, token });
  const left = () => (handle.expiresAt === null ? Infinity : 1000 * handle.expiresAt - Date.now());

  async function renewed() {
    const next = await renew(handle);
    if (next) handle = next;
    return Boolean(next);
  }

  function schedule() {
    const wait = 0.9 * left();
    if (over || !renew || wait === Infinity) return;
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
    const body = JSON.stringify({ stream, secret: stop.secret, reason });
    const headers = { "Content-Type": "application/json" };
    for (let tries = 0; tries < STOP_TRIES; tries++) {
      if (tries > 0) await sleep(Math.min(2 ** (tries - 1) * STOP_PAUSE[0], STOP_PAUSE[1]));
      if (ended) break;
      try {
        const response = await invokeService({ path: stop.path, method: "POST", headers, body });
        if (response?.body?.stopped === true) return true;
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
