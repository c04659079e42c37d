import { invokeService } from "@forge/bridge";
import { onStream } from "./streams.js";
import "../../style.css";

const REPLAY = 300; // seconds

const [form, question, answer, status] = ["ask", "question", "answer", "status"].map((id) => document.getElementById(id));
let subscription;

function show(state, text) {
  document.body.dataset.state = state;
  status.textContent = text;
}

// Shows an answer from its beginning, also one that another page has begun.
async function follow(id, options) {
  await subscription?.unsubscribe();
  answer.textContent = "";
  let whole = true;
  const handlers = {
    onUpdate({ value }) {
      answer.textContent = value;
      show("running", "Answering…");
    },
    onGap() {
      whole = false;
    },
    onEnd({ error }) {
      sessionStorage.removeItem("answer");
      if (error) show("failed", "The answer could not be finished. Ask again.");
      else if (!whole) show("failed", "A part of the answer did not arrive. Ask again.");
      else show("done", "Done.");
    },
  };
  subscription = await onStream(`answer-${id}`, handlers, options);
}

async function ask() {
  const id = crypto.randomUUID();
  show("running", "Asking…");
  // Before it begins: nothing of it can be missed.
  await follow(id);
  sessionStorage.setItem("answer", id);
  const reply = await invokeService({
    path: "/answers",
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ id, text: question.value }),
  });
  if (reply.status !== 202) throw new Error(reply.error || `The service answered ${reply.status}.`);
}

const failed = (error) => show("failed", error.message);

form.addEventListener("submit", (event) => {
  event.preventDefault();
  ask().catch(failed);
});

// The page was reloaded while an answer came.
const unfinished = sessionStorage.getItem("answer");
if (unfinished) follow(unfinished, { replaySeconds: REPLAY }).catch(failed);
