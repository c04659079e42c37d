import { invokeService, realtime } from "@forge/bridge";
import { onStream } from "./streams.js";
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
  const handle = await post("/answers", { text });
  let complete = true;
  subscription = await onStream(handle, {
    onUpdate({ value, whole }) {
      element("answer").textContent = value;
      if (whole) complete = true;
      show("Answering…");
    },
    onGap() {
      complete = false;
    },
    onEnd({ error, stopped }) {
      element("stop").disabled = true;
      if (stopped) show("Stopped.");
      else show(error || !complete ? "The answer is not complete. Ask again." : "Done.");
    },
  });
  element("stop").disabled = false;
}

element("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  ask(element("question").value).catch(fail);
});

element("stop").addEventListener("click", () => subscription.cancel().catch(fail));

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
