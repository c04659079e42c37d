// The feed of the emulator, over a WebSocket: Chromium allows 255 to one host, but six other connections, for all tabs
// together. A hidden tab has none.

const SILENCE = 5000; // milliseconds; the emulator says something each second
const RETRY = 1000;

/**
 * @param started called when everything read before is to be forgotten
 * @param taken called with each record
 * @param state called with each state
 * @param shown called with "on", "off" or "hidden" when the connection changes
 */
export function follow({ started, taken, state, shown }) {
  let socket = null;
  let silence;
  let retry;
  let live = false;

  function connect() {
    clearTimeout(retry);
    if (socket || document.hidden) return;
    live = false;
    socket = new WebSocket(`${location.origin.replace("http", "ws")}/_emulator/feed`);
    listen();
    socket.onclose = lost;
    socket.onmessage = ({ data }) => {
      listen();
      shown("on");
      for (const line of data.split("\n")) take(JSON.parse(line));
    };
  }

  function listen() {
    clearTimeout(silence);
    silence = setTimeout(lost, SILENCE);
  }

  function take(message) {
    if (message.kind === "state") {
      live = true;
      state(message);
    } else if (message.kind === "start") {
      live = false;
      started();
    } else {
      taken({ ...message, live });
    }
  }

  function end() {
    clearTimeout(silence);
    if (!socket) return;
    socket.onclose = socket.onmessage = null;
    socket.close();
    socket = null;
  }

  function lost() {
    end();
    if (document.hidden) return;
    shown("off");
    retry = setTimeout(connect, RETRY);
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      end();
      clearTimeout(retry);
      shown("hidden");
    } else {
      connect();
    }
  });
  connect();
}
