// React hook for the streams that the container sends. Copy this file and use-forge-stream.d.ts beside streams.js.

import { useCallback, useEffect, useReducer, useRef } from "react";
import { onStream } from "./streams.js";

const START = { value: undefined, status: "idle", complete: true };

function reduce(state, event) {
  switch (event.type) {
    case "start":
      return { ...START, status: event.target === null ? "idle" : "waiting" };
    case "update": {
      const { merge, value, whole } = event.update;
      // A batch brings the new items only.
      const shown = merge === "batch" && !whole && state.value !== undefined ? [...state.value, ...value] : value;
      return { ...state, value: shown, status: "streaming", complete: state.complete || whole === true };
    }
    case "gap":
      return { ...state, complete: false };
    case "end": {
      const { error, stopped } = event.end;
      return { ...state, status: error ? "failed" : stopped ? "stopped" : "done", error, stopped };
    }
    default:
      return { ...state, status: "failed", error: { type: "SubscriptionError", message: event.message } };
  }
}

/** Follows the stream of a handle, or the newest one on a channel; see use-forge-stream.d.ts. */
export function useForgeStream(channelOrHandle, options) {
  const target = channelOrHandle ?? null;
  // A handle that was parsed again is the same one.
  const key = target === null || typeof target === "string" ? target : target.stream;
  const latest = useRef();
  latest.current = { target, options };
  const subscribed = useRef(null);
  const [state, dispatch] = useReducer(reduce, START);

  useEffect(() => {
    const { target, options } = latest.current;
    let over = false;
    let stream;
    dispatch({ type: "start", target });
    if (target === null) return undefined;

    const handlers = {
      onUpdate(update) {
        if (over) return;
        // Another stream on the channel begins.
        if (stream !== undefined && stream !== update.stream) dispatch({ type: "start", target });
        stream = update.stream;
        dispatch({ type: "update", update });
      },
      onGap: (gap) => over || dispatch({ type: "gap", gap }),
      onEnd: (end) => over || dispatch({ type: "end", end }),
      fetchValue: options?.fetchValue && ((snapshot) => latest.current.options?.fetchValue?.(snapshot)),
    };
    const { fetchValue, ...others } = options ?? {};

    let opening;
    async function subscribe() {
      // React's strict mode runs each effect twice at first, at once: only the second one gets beyond this line.
      await null;
      if (over) return;
      opening = subscribed.current = onStream(target, handlers, others);
      opening.catch((error) => over || dispatch({ type: "failure", message: error?.message }));
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
