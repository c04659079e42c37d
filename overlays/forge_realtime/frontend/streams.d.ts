import type { SubscriptionOptions } from "@forge/bridge";

interface Update {
  /** The stream's id. Several streams can be on one channel. */
  stream: string;
  /** The number of the publish that brought the update, from 0. */
  seq: number;
  /** How many updates of the sender were merged into this one. */
  updates: number;
}

/** What came, and in `value` what there is now: with "append" the whole text so far, else the same as `data`. */
export type StreamUpdate<T = unknown> =
  | (Update & { merge: "append"; data: string; value: string })
  | (Update & { merge: "latest" | "reduce"; data: T; value: T })
  | (Update & { merge: "batch"; data: T[]; value: T[] });

export interface StreamEnd<T = unknown> {
  stream: string;
  seq: number;
  merge: "append" | "latest" | "reduce" | "batch";
  /** The `value` of the last update; undefined if there was none. */
  value?: string | T | T[];
  /** What kind of error ended the stream, by its Python class: "TimeoutError". Undefined when all went well. */
  error?: string;
}

/** Publishes of a stream that did not arrive, by their numbers. They are not waited for any longer. */
export interface StreamGap {
  stream: string;
  /** The first of them; 0 when the beginning is missing, as on a page that came later. */
  from: number;
  /** The last of them. */
  to: number;
}

export interface StreamHandlers<T = unknown> {
  onUpdate?(update: StreamUpdate<T>): void;
  onEnd?(end: StreamEnd<T>): void;
  onGap?(gap: StreamGap): void;
}

export interface StreamSubscription {
  /** Ends it: no handler is called any more. */
  unsubscribe(): Promise<void>;
}

/**
 * Reads the streams that the container sends to a channel with `live.stream(channel)`: each update once and in order.
 *
 * An event that comes before its predecessors waits for them, a second at most; then `onGap` says which are missing. Events
 * of the channel that belong to no stream are left out.
 *
 * @param options Those of the bridge's `realtime.subscribe`. With `replaySeconds` a page that was reloaded gets the
 * streams of the last seconds from their beginning.
 * @returns A promise that is rejected as the bridge's is.
 */
export declare function onStream<T = unknown>(
  channel: string,
  handlers: StreamHandlers<T>,
  options?: SubscriptionOptions,
): Promise<StreamSubscription>;

/** As `onStream`, for what is sent with `live.stream_global(channel)`. */
export declare function onGlobalStream<T = unknown>(
  channel: string,
  handlers: StreamHandlers<T>,
  options?: SubscriptionOptions,
): Promise<StreamSubscription>;
