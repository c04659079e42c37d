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

  async function ask(path, init) {
    let response;
    let answer;
    try {
      response = await fetch(new URL(path, own), init);
      answer = await response.json();
    } catch {
      throw unreachable();
    }
    return { ok: response.ok, answer };
  }

  function post(path, body) {
    return ask(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ ...body, invocation }),
    });
  }

  function refusal({ code, message }) {
    return Object.assign(new Error(`${code}: ${message}`), { code });
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

  function subscribeRealtimeChannel({ channelName, onEvent, options, isGlobal }) {
    const seen = new Set();
    let began = null;
    let latest = null;
    let failures = 0;
    let subscribed = false;
    let ended = false;
    let socket;
    let waiting;

    // Asks for the missed events, and for none from before the subscription. The margin covers the time in transit;
    // duplicates that it causes are dropped.
    function replaySeconds() {
      if (!subscribed) return options?.replaySeconds;
      const sinceBegin = seconds() - began + (options?.replaySeconds ?? 0);
      return latest === null ? sinceBegin : Math.min(sinceBegin, seconds() - latest + REPLAY_MARGIN);
    }

    function deliver({ eventId, payload }) {
      latest = seconds();
      if (seen.has(eventId)) return;
      seen.add(eventId);
      if (seen.size > SEEN_LIMIT) seen.delete(seen.values().next().value);
      onEvent(received(payload));
    }

    function connect(resolve, reject) {
      const address = new URL("/_emulator/subscribe", own);
      address.protocol = own.protocol.replace("http", "ws");
      let refused;
      socket = new WebSocket(address);
      socket.onopen = () => {
        began ??= seconds();
        const asked = { ...options, replaySeconds: replaySeconds() };
        socket.send(JSON.stringify({ channel: channelName, isGlobal, invocation, options: asked }));
      };
      socket.onmessage = ({ data }) => {
        const message = JSON.parse(data);
        if (ended) return;
        if (message.type === "event") deliver(message);
        if (message.type === "error") refused = refusal(message);
        if (message.type === "subscribed") {
          failures = 0;
          subscribed = true;
          resolve({ unsubscribe });
        }
      };
      socket.onclose = ({ code, reason }) => {
        if (ended) return;
        if (!subscribed) {
          reject(refused ?? (code === 1006 ? unreachable() : new Error(`The subscription failed: ${code} ${reason}`)));
        } else if (refused && refused.code !== "RATE_LIMIT_EXCEEDED") {
          ended = true;
          console.error(`The subscription could not be renewed, and has ended. ${refused.message}`);
        } else {
          waiting = setTimeout(connect, Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** failures), resolve, reject);
          failures += 1;
        }
      };
    }

    async function unsubscribe() {
      ended = true;
      clearTimeout(waiting);
      if (socket.readyState === WebSocket.CLOSED) return;
      await new Promise((resolve) => {
        socket.addEventListener("close", resolve);
        socket.close();
      });
    }

    return new Promise(connect);
  }

  async function publishRealtimeChannel({ channelName, eventPayload, options, isGlobal }) {
    const payload = typeof eventPayload === "string" ? eventPayload : JSON.stringify(eventPayload);
    const { ok, answer } = await post("/_emulator/publish", { channel: channelName, payload, options, isGlobal });
    if (ok) return answer;
    return { eventId: null, eventTimestamp: null, errors: [refusal(answer).message] };
  }

  async function getContext() {
    const query = invocation === undefined ? "" : `?${new URLSearchParams({ invocation })}`;
    const { ok, answer } = await ask(`/_emulator/context${query}`);
    if (!ok) throw refusal(answer);
    return answer;
  }

  async function invoke({ invokeType, ...call }) {
    if (invokeType !== "ui-container-fetch") {
      throw new Error("The emulator's bridge has invokeService, and neither invoke nor invokeRemote.");
    }
    const { ok, answer } = await post("/_emulator/invoke", call);
    const result = ok ? answer : { success: false, error: answer };
    if (!result.success) console.error(`invokeService failed. ${refusal(result.error).message}`);
    return result;
  }

  const commands = { subscribeRealtimeChannel, publishRealtimeChannel, getContext, invoke };

  async function callBridge(command, payload) {
    if (!Object.hasOwn(commands, command)) {
      const known = Object.keys(commands).join(", ");
      throw new Error(`The emulator's bridge does not have the command ${command}. It has ${known}.`);
    }
    return commands[command](payload);
  }

  globalThis.__bridge = { callBridge };
})();
