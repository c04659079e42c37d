// Gives the tests what an app's front end sees of its streams, over @forge/bridge.

import { onGlobalStream, onStream } from "streams";

const subscriptions = {};
window.seen = {};

// Collects what the handlers are called with under a name.
window.follow = async (name, channel, { isGlobal = false, ...options } = {}) => {
  const seen = (window.seen[name] = []);
  const handlers = Object.fromEntries(
    ["onUpdate", "onEnd", "onGap"].map((handler) => [handler, (event) => seen.push([handler, event])]),
  );
  subscriptions[name] = await (isGlobal ? onGlobalStream : onStream)(channel, handlers, options);
};

window.unfollow = (name) => subscriptions[name].unsubscribe();
