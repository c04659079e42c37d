import type { PrivateStreamOptions, StreamHandle, StreamHandlers } from "./streams.js";
import type { SubscriptionOptions } from "@forge/bridge";

export interface ForgeStream<T = unknown> {
  /** The whole text with "append", the list of all items with "batch", else the newest value; undefined before. */
  value: T | undefined;
  /** `idle`: there is no stream to follow yet. `waiting`: nothing has come. */
  status: "idle" | "waiting" | "streaming" | "done" | "stopped" | "failed";
  /** Whether no part of the value is missing. */
  complete: boolean;
  /** Why the stream failed; `type` is "SubscriptionError" if it could not be subscribed to. */
  error?: { type: string; message?: string };
  /** Who stopped the stream, and why. */
  stopped?: { by: string; reason?: string };
  /** Stops the private stream of a handle. Resolves to whether it was stopped; to false for a channel. */
  cancel(reason?: string): Promise<boolean>;
}

type Options = Pick<StreamHandlers, "fetchValue">;

/**
 * Follows the private stream of a handle. The component subscribes once for each stream, and unsubscribes when it is
 * unmounted or gets another handle. Only the options of the first render with a handle count.
 */
export declare function useForgeStream<T = string>(
  handle: StreamHandle | null | undefined,
  options?: PrivateStreamOptions & Options,
): ForgeStream<T>;

/** Follows the newest stream that the container sends with `live.stream(channel)`. */
export declare function useForgeStream<T = string>(
  channel: string | null | undefined,
  options?: SubscriptionOptions & Options,
): ForgeStream<T>;
