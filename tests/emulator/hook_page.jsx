// A component with the hook `useForgeStream`, on a bridge that only counts. The test feeds it.

import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { onStream } from "streams";
import { useForgeStream } from "use-forge-stream";

window.states = [];

function Answer({ target, options }) {
  const { cancel, ...state } = useForgeStream(target, options);
  window.cancel = cancel;
  window.states.push(JSON.parse(JSON.stringify(state)));
  return <p>{JSON.stringify(state.value ?? null)}</p>;
}

let root;
window.render = (target, options) => {
  root ??= createRoot(document.body.appendChild(document.createElement("main")));
  root.render(<StrictMode>{target !== undefined && <Answer target={target} options={options} />}</StrictMode>);
};
window.unmount = () => {
  root?.unmount();
  root = undefined;
};

// Follows a handle without React. `renewals` are what `renew` returns, in order.
window.follow = async (handle, renewals) => {
  window.seen = [];
  class Handlers {
    #seen = window.seen;
    onUpdate({ value }) {
      this.#seen.push(value);
    }
    onEnd() {
      this.#seen.push("end");
    }
  }
  const handlers = Object.freeze(new Handlers());
  const renew = renewals && (async () => renewals.shift());
  window.subscription = await onStream(handle, handlers, { replaySeconds: 60, renew });
};
