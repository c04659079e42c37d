// node jsdom_page.js URL PAGE: runs a page with bridge.js in jsdom, without polyfills, and prints what it gets.

const { createRequire } = require("node:module");
const { JSDOM } = createRequire(`${process.cwd()}/`)("jsdom");
const [origin, path] = process.argv.slice(2);

async function main() {
  const dom = await JSDOM.fromURL(origin + path, { resources: "usable", runScripts: "dangerously" });
  const { window } = dom;
  await new Promise((resolve) => window.addEventListener("load", resolve));
  const { realtime, invokeService, invoke, view, events, showFlag } = window.bridge;
  const heard = [];
  let received;
  const arrived = new Promise((resolve) => (received = resolve));
  const subscription = await realtime.subscribe("board", received);
  await realtime.publish("board", { moved: 7 });
  const payload = await arrived;
  await subscription.unsubscribe();
  await view.theme.enable();
  await events.on("saved", (event) => heard.push(event));
  await events.emit("saved", 1);
  showFlag({ id: 1, title: "Saved" });
  const history = await view.createHistory();
  history.push("/items/1");
  const context = await view.getContext();
  const response = await invokeService({ path: "/", method: "GET" });
  const value = await invoke("key");
  console.log(
    JSON.stringify({
      fetch: typeof window.fetch,
      payload,
      heard,
      module: context.moduleKey,
      status: response.status,
      value,
      path: history.location.pathname,
      theme: window.document.documentElement.dataset.colorMode,
    }),
  );
  window.close();
}

main();
