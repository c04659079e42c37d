// Bridge that runs a front end with the official package @forge/bridge in an ordinary browser, against the emulator.
//
// Load it from the emulator, before the bundle of the page:
//
//     <script src="http://127.0.0.1:7072/bridge.js?invocation=invocation-123"></script>
//
// The page uses the context registered for that invocation. `invocation` may be in the page's own URL instead; without
// it the page uses the default context. The page's origin must be allowed: emulate --origin URL.
//
// Payloads travel as text: a string as it is, as in the containers' API, anything else as JSON. If the text is the JSON
// of an object or array, the subscriber gets that object, because that is most likely what was published. Any other
// text stays text: "42" or "null" is most likely a published string. A published string that is the JSON of an object
// therefore arrives as an object. Whether the platform can tell the two apart is unknown.

(() => {
  "use strict";

  const FIRST_WAIT = 100; // milliseconds before the first reconnect; doubled each time
  const LONGEST_WAIT = 2000; // milliseconds
  const REPLAY_MARGIN = 1; // seconds
  const SEEN_LIMIT = 10000; // number of events that the emulator replays at most
  const NO_BODY = [204, 205, 304]; // statuses whose Response must have no body

  if (!document.currentScript?.src) {
    throw new Error('The emulator\'s bridge.js must be loaded by <script src="http://…/bridge.js">, not as a module.');
  }
  const own = new URL(document.currentScript.src);
  const invocation =
    own.searchParams.get("invocation") ?? new URLSearchParams(location.search).get("invocation") ?? undefined;

  const unreachable = () =>
    new Error(
      `The emulator at ${own.origin} cannot be reached from this page. Start it so that it lets the page in:` +
        ` forge-realtime emulate --origin ${location.origin}`,
    );

  // XMLHttpRequest, because jsdom has no fetch.
  function ask(path, body) {
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      request.open(body === undefined ? "GET" : "POST", new URL(path, own).href);
      request.onload = () => {
        try {
          resolve({ ok: request.status < 400, answer: JSON.parse(request.responseText) });
        } catch {
          reject(unreachable());
        }
      };
      request.onerror = () => reject(unreachable());
      if (body !== undefined) request.setRequestHeader("Content-Type", "application/json");
      request.send(body === undefined ? null : JSON.stringify(body));
    });
  }

  // The message is exactly the platform's; `detail` is what the emulator adds to explain it.
  function refusal({ code, message, errors, detail }) {
    return Object.assign(new Error(errors?.[0]?.message ?? message), { code, detail });
  }

  function received(text) {
    try {
      const value = JSON.parse(text);
      return typeof value === "object" && value !== null ? value : text;
    } catch {
      return text;
    }
  }

  const seconds = () => performance.now() / 1000;

  const subscriptions = new Map();
  let lastId = 0;
  let socket;

  // One WebSocket carries all subscriptions of the page: Chromium allows 255.
  function connected() {
    if (socket && socket.readyState <= WebSocket.OPEN) return socket;
    const address = new URL("/_emulator/subscriptions", own);
    address.protocol = own.protocol.replace("http", "ws");
    const opened = (socket = new WebSocket(address.href));
    const carried = () => [...subscriptions.values()].filter((subscription) => subscription.socket === opened);
    opened.onopen = () => carried().forEach((subscription) => subscription.request());
    opened.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      subscriptions.get(message.id)?.receive(message);
    };
    opened.onclose = ({ code, reason }) => {
      const error = code === 1006 ? unreachable() : new Error(`The subscription failed: ${code} ${reason}`);
      carried().forEach((subscription) => subscription.lose(error));
    };
    return opened;
  }

  class Subscription {
    id = (lastId += 1);
    seen = new Set();
    began = null;
    latest = null;
    failures = 0;
    subscribed = false;

    constructor({ channelName, onEvent, options, isGlobal }, resolve, reject) {
      Object.assign(this, { channelName, onEvent, options, isGlobal, resolve, reject });
      subscriptions.set(this.id, this);
      this.start();
    }

    start() {
      this.waiting = undefined;
      this.socket = connected();
      if (this.socket.readyState === WebSocket.OPEN) this.request();
    }

    request() {
      this.began ??= seconds();
      const options = { ...this.options, replaySeconds: this.replaySeconds() };
      const subscription = { channel: this.channelName, isGlobal: this.isGlobal, invocation, options };
      this.send({ type: "subscribe", subscription });
    }

    send(message) {
      this.socket.send(JSON.stringify({ id: this.id, ...message }));
    }

    // Asks for the missed events, and for none from before the subscription. The margin covers the time in transit;
    // duplicates that it causes are dropped.
    replaySeconds() {
      if (!this.subscribed) return this.options?.replaySeconds;
      const sinceBegin = seconds() - this.began + (this.options?.replaySeconds ?? 0);
      return this.latest === null ? sinceBegin : Math.min(sinceBegin, seconds() - this.latest + REPLAY_MARGIN);
    }

    receive(message) {
      if (message.type === "unsubscribed") this.unsubscribed();
      if (this.ended) return;
      if (message.type === "event") this.deliver(message);
      if (message.type === "error") this.refuse(refusal(message));
      if (message.type === "closed") this.retry();
      if (message.type === "subscribed") {
        this.failures = 0;
        this.subscribed = true;
        this.resolve({ unsubscribe: () => this.unsubscribe() });
      }
    }

    deliver({ eventId, payload }) {
      this.latest = seconds();
      if (this.seen.has(eventId)) return;
      this.seen.add(eventId);
      if (this.seen.size > SEEN_LIMIT) this.seen.delete(this.seen.values().next().value);
      this.onEvent(received(payload));
    }

    refuse(error) {
      if (this.subscribed && error.code === "RATE_LIMIT_EXCEEDED") return this.retry();
      subscriptions.delete(this.id);
      if (error.detail) console.warn(error.detail);
      if (!this.subscribed) return this.reject(error);
      console.error(`The subscription could not be renewed, and has ended. ${error.message}`);
    }

    lose(error) {
      if (this.ended) return this.unsubscribed?.();
      if (this.subscribed) return this.retry();
      subscriptions.delete(this.id);
      this.reject(error);
    }

    retry() {
      if (this.waiting !== undefined) return;
      this.waiting = setTimeout(() => this.start(), Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** this.failures));
      this.failures += 1;
    }

    unsubscribe() {
      this.ended ??= this.end();
      return this.ended;
    }

    async end() {
      clearTimeout(this.waiting);
      if (subscriptions.has(this.id) && this.waiting === undefined && this.socket.readyState === WebSocket.OPEN) {
        const answered = new Promise((resolve) => (this.unsubscribed = resolve));
        this.send({ type: "unsubscribe" });
        await answered;
      }
      subscriptions.delete(this.id);
      if (subscriptions.size === 0) socket.close();
    }
  }

  function subscribeRealtimeChannel(described) {
    return new Promise((resolve, reject) => new Subscription(described, resolve, reject));
  }

  async function publishRealtimeChannel({ channelName, eventPayload, options, isGlobal }) {
    const payload = typeof eventPayload === "string" ? eventPayload : JSON.stringify(eventPayload);
    const publication = { channel: channelName, payload, options, isGlobal, invocation };
    const { ok, answer } = await ask("/_emulator/publish", publication);
    if (ok) return answer;
    const { message, detail } = refusal(answer);
    if (detail) console.warn(detail);
    return { eventId: null, eventTimestamp: null, errors: [{ message }] };
  }

  async function getContext() {
    const query = invocation === undefined ? "" : `?${new URLSearchParams({ invocation })}`;
    const { ok, answer } = await ask(`/_emulator/context${query}`);
    if (!ok) throw refusal(answer);
    return answer;
  }

  async function invokeService(call) {
    const { ok, answer } = await ask("/_emulator/invoke", { ...call, invocation });
    if (!ok) throw refusal(answer);
    return answer;
  }

  // Gets the answer of a mock route: {status, json}, without `json` if it has no body.
  async function mocked(method, path) {
    const { ok, answer } = await ask("/_emulator/mocked", { method, path });
    if (!ok) throw refusal(answer);
    if (answer.status === 501) console.error(answer.json?.message);
    return answer;
  }

  async function invokeRemote({ path, method }) {
    const { status, json } = await mocked(method, `/remote${path}`);
    const headers = { "content-type": ["application/json"] };
    if (status < 400) return { success: true, payload: { status, headers, body: json } };
    return { success: false, error: { status, headers, error: JSON.stringify(json) } };
  }

  async function invokeFunction({ functionKey, metadata }) {
    const { status, json } = await mocked("POST", `/invoke/${functionKey}`);
    if (status >= 400) throw new Error(json?.message ?? `The mock route of ${functionKey} says ${status}.`);
    return metadata === undefined ? json : { body: json, metadata: {} };
  }

  function invoke({ invokeType, ...call }) {
    if (invokeType === "ui-container-fetch") return invokeService(call);
    return invokeType === "ui-remote-fetch" ? invokeRemote(call) : invokeFunction(call);
  }

  async function fetched(path, { method = "GET" } = {}) {
    const { status, json } = await mocked(method, path);
    const body = json === undefined || NO_BODY.includes(status) ? "" : JSON.stringify(json);
    return { status, statusText: "", headers: { "content-type": "application/json" }, body, isAttachment: false };
  }

  const slashed = (path = "") => (path.startsWith("/") ? path : `/${path}`);
  const fetchProduct = ({ product, restPath, fetchRequestInit }) =>
    fetched(`/${product}${slashed(restPath)}`, fetchRequestInit);
  const fetchRemote = ({ remoteKey, fetchRequestInit }) =>
    fetched(`/remote/${remoteKey}${slashed(fetchRequestInit?.path)}`, fetchRequestInit);

  const commands = {
    subscribeRealtimeChannel,
    publishRealtimeChannel,
    getContext,
    invoke,
    fetchProduct,
    fetchRemote,
  };
  const refused = new Set();

  async function callBridge(command, payload) {
    if (Object.hasOwn(commands, command)) return commands[command](payload);
    const error = new Error(
      `The emulator's bridge does not have the command ${command}: what it does on the platform is missing here.` +
        ` To go on without it, set __bridge.commands.${command} to a function after bridge.js has been loaded.`,
    );
    if (!refused.has(command)) console.error(error.message);
    refused.add(command);
    throw error;
  }

  globalThis.__bridge = { callBridge, commands };
})();
