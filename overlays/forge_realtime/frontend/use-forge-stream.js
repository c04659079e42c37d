// React hook for the streams that the container sends. Copy this file and use-forge-stream.d.ts beside streams.js.

import { useCallback, useEffect, useRef, useState } from "react";
import { onStream } from "./streams.js";

const IDLE = { value: undefined, status: "idle", complete: true };
const WAITING = { ...IDLE, status: "waiting" };

/** Follows the stream of a handle, or the newest one on a channel; see use-forge-stream.d.ts. */
export function useForgeStream(channelOrHandle, options) {
  const target = channelOrHandle ?? null;
  // A handle that was parsed again is the same one.
  const key = target === null || typeof target === "string" ? target : target.stream;
  const latest = useRef();
  latest.current = { target, options };
  const subscribed = useRef(null);
  const [state, setState] = useState(IDLE);

  useEffect(() => {
    const { target, options } = latest.current;
    const open = new Map(); // the state of each stream that has not ended, by id
    let shown; // id of the newest stream
    let over = false;
    setState(target === null ? IDLE : WAITING);
    if (target === null) return undefined;

    const stateOf = (stream) => open.get(stream) ?? WAITING;

    function show(stream, begins, changes) {
      if (over) return;
      const state = { ...stateOf(stream), ...changes };
      if (["waiting", "streaming"].includes(state.status)) open.set(stream, state);
      else open.delete(stream);
      // On a channel, a stream that did not begin here may be older: the repetition of one that has ended.
      if (stream !== shown && !begins && open.has(shown)) return;
      shown = stream;
      setState(state);
    }

    const handlers = {
      onUpdate({ stream, seq, merge, value, whole }) {
        const former = stateOf(stream);
        // A batch brings the new items only.
        const isMore = merge === "batch" && !whole && former.value !== undefined;
        const complete = former.complete || whole === true;
        show(stream, seq === 0, { value: isMore ? [...former.value, ...value] : value, status: "streaming", complete });
      },
      onGap({ stream, from, to }) {
        show(stream, from === 0, { complete: false });
        // The reader has given it up.
        if (to === Infinity) open.delete(stream);
      },
      onEnd({ stream, seq, error, stopped }) {
        show(stream, seq === 0, { status: error ? "failed" : stopped ? "stopped" : "done", error, stopped });
      },
      fetchValue: options?.fetchValue && ((snapshot) => latest.current.options?.fetchValue?.(snapshot)),
    };
    const { fetchValue, ...others } = options ?? {};

    let opening;
    async function subscribe() {
      // React's strict mode runs each effect twice at first, at once: only the second one gets beyond this line.
      await null;
      if (over) return;
      opening = subscribed.current = onStream(target, handlers, others);
      opening.catch((error) => {
        const { message } = error ?? {};
        if (!over) setState((former) => ({ ...former, status: "failed", error: { type: "SubscriptionError", message } }));
      });
    }
    subscribe();

    return () => {
      over = true;
      subscribed.current = null;
      opening?.then((subscription) => subscription.unsubscribe()).catch(() => {});
    };
  }, [key]);

  const cancel = useCallback(async (reason) => {
    try {
      const subscription = await subscribed.current;
      return (await subscription?.cancel?.(reason)) ?? false;
    } catch {
      return false;
    }
  }, []);

  return { ...state, cancel };
}
