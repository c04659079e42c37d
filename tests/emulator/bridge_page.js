// Gives the tests what @forge/bridge gives to an app.

import * as bridge from "@forge/bridge";

const { realtime } = bridge;
const subscriptions = {};
window.bridge = bridge;
window.events = {};

// Collects the events of a subscription under a name.
window.listen = async (name, channel, { isGlobal = false, ...options } = {}) => {
  const subscribe = isGlobal ? realtime.subscribeGlobal : realtime.subscribe;
  const events = (window.events[name] = []);
  subscriptions[name] = await subscribe(channel, (payload) => events.push(payload), options);
};

window.unlisten = (name) => subscriptions[name].unsubscribe();
