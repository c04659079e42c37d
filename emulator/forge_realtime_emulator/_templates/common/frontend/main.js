import { invokeService, realtime } from "@forge/bridge";
import { onGlobalStream } from "./streams.js";
import "./style.css";

const element = (id) => document.getElementById(id);
let subscription;

const show = (text) => (element("status").textContent = text);
const fail = (error) => show(error.message);

async function post(path, body) {
  const response = await invokeService({
    path,
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  if (response.status >= 400) throw new Error(`The service responded with ${response.status}: ${response.error}`);
  return response.body ?? response;
}

async function ask(text) {
  await subscription?.unsubscribe();
  element("answer").textContent = "";
  show("Asking…");
  // Nobody else knows this id, so nobody else gets a token for its channel.
  const id = crypto.randomUUID();
  const { channel, token } = await post(`/answers/${id}/token`, {});
  let whole = true;
  const handlers = {
    onUpdate({ value }) {
      element("answer").textContent = value;
      show("Answering…");
    },
    onGap() {
      whole = false;
    },
    onEnd({ error }) {
      show(error || !whole ? "The answer is not complete. Ask again." : "Done.");
    },
  };
  // Before the question, so that nothing of the answer is missed.
  subscription = await onGlobalStream(channel, handlers, { token });
  await post(`/answers/${id}`, { text });
}

element("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  ask(element("question").value).catch(fail);
});

element("send").addEventListener("submit", (event) => {
  event.preventDefault();
  post("/messages", { text: element("message").value })
    .then(() => (element("message").value = ""))
    .catch(fail);
});

realtime
  .subscribe("messages", ({ text }) => {
    const item = document.createElement("li");
    item.textContent = text;
    element("messages").append(item);
  })
  .then(() => show("Ready."))
  .catch(fail);
