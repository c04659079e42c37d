import type { SubscriptionOptions } from "@forge/bridge";

interface Update {
  /** Id of the stream. A channel can carry several streams. */
  stream: string;
  /** Number of the last update in it, counted from 0. */
  seq: number;
  /** Number of the sender's updates that were merged into this one. */
  updates: number;
  /**
   * Present if `data` is the whole value of the stream, which replaces everything shown before: after a gap, and with
   * "reduce" whenever an update was missing.
   */
  whole?: true;
}

/** An update: `data` is what was received; `value` is the whole text so far with "append", otherwise `data`. */
export type StreamUpdate<T = unknown> =
  | (Update & { merge: "append"; data: string; value: string })
  | (Update & { merge: "latest" | "reduce"; data: T; value: T })
  | (Update & { merge: "batch"; data: T[]; value: T[] });

export interface StreamEnd<T = unknown> {
  stream: string;
  seq: number;
  merge: "append" | "latest" | "reduce" | "batch";
  /** `value` of the last update; undefined if there was none. */
  value?: string | T | T[];
  /** The error that ended the stream: its Python class, such as "TimeoutError", and a text that the app chose. */
  error?: { type: string; message?: string };
  /** Who stopped the stream, and why. */
  stopped?: { by: string; reason?: string };
}

/** The name of a value that the app keeps: with the option `snapshot=` of the stream. */
export interface StreamSnapshot {
  stream: string;
  /** The value is the one after the updates 0 to `at - 1`. */
  at: number;
  digest: string;
  merge: "append" | "latest" | "reduce" | "batch";
}

/** Numbers of updates that did not arrive and are no longer awaited. A later snapshot can still bring them. */
export interface StreamGap {
  stream: string;
  /** First missing number; 0 if the beginning is missing, as on a page that loaded late. */
  from: number;
  /** Last missing number. Infinity if the stream was given up, because 1,000 others on the channel had not ended. */
  to: number;
}

export interface StreamHandlers<T = unknown> {
  onUpdate?(update: StreamUpdate<T>): void;
  onEnd?(end: StreamEnd<T>): void;
  onGap?(gap: StreamGap): void;
  /** Gets a value from the app's own store: text with "append", a list with "batch", else what was sent. */
  fetchValue?(snapshot: StreamSnapshot): unknown;
}

export interface StreamSubscription {
  /** Ends the subscription. No handler is called afterwards. */
  unsubscribe(): Promise<void>;
}

/**
 * Subscribes to the streams that the container sends with `live.stream(channel)`. Each update arrives once, in order.
 *
 * A page that loads late or loses an event is complete with the next snapshot: the whole value, which the container
 * repeats every few seconds (`snapshot_interval`) and at the end. An event that arrives early waits for the missing ones
 * or for a snapshot; after a second and twice that time, at most 60 seconds, `onGap` reports them. Without snapshots, that
 * is after one second. With "latest", nothing waits. Other events on the channel are ignored.
 *
 * Limits of a subscription: 1,000 streams that have not ended, then the one without news for longest is given up, and
 * `onGap` reports that; 1,000 waiting events of each; the ids of the last 10,000 other streams, whose events are ignored.
 *
 * @param options Options of the bridge's `realtime.subscribe`. With `replaySeconds`, a page also gets streams that have
 * ended before, if the platform keeps their events.
 * @returns A promise that rejects if the bridge's promise does.
 */
export declare function onStream<T = unknown>(
  channel: string,
  handlers: StreamHandlers<T>,
  options?: SubscriptionOptions,
): Promise<StreamSubscription>;

/** What the page needs for a private stream: `stream.handle` of the container, as the app's route returns it. */
export interface StreamHandle {
  channel: string;
  stream: string;
  token: string;
  /** Seconds since the epoch; null if the platform does not say. */
  expiresAt: number | null;
  stop: { path: string; secret: string };
}

export interface PrivateStreamOptions extends Omit<SubscriptionOptions, "token" | "contextOverrides"> {
  /**
   * Gets another handle for the stream from a route of the app, which calls `renew_handle`; null if there is none. It is
   * called when a tenth of the token's life is left, and if it has expired before the subscription begins.
   */
  renew?(handle: StreamHandle): Promise<StreamHandle | null | undefined>;
}

export interface PrivateStreamSubscription extends StreamSubscription {
  /**
   * Stops the stream, through the app's `StopRoute`. The service may have several replicas, so a call that does not reach
   * the stream's own is repeated: 8 calls at most, in 9 seconds.
   *
   * @param reason Shown to the page in `stopped`, up to 200 characters.
   * @returns Whether the stream was stopped, or has ended anyway.
   */
  cancel(reason?: string): Promise<boolean>;
}

/**
 * Subscribes to the private stream of a handle, with its token. The subscription ends with the stream.
 *
 * @returns A promise that rejects if the bridge's promise does.
 */
export declare function onStream<T = unknown>(
  handle: StreamHandle,
  handlers: StreamHandlers<T>,
  options?: PrivateStreamOptions,
): Promise<PrivateStreamSubscription>;

/** Subscribes to the streams that the container sends with `live.stream_global(channel)`; otherwise as `onStream`. */
export declare function onGlobalStream<T = unknown>(
  channel: string,
  handlers: StreamHandlers<T>,
  options?: SubscriptionOptions,
): Promise<StreamSubscription>;
