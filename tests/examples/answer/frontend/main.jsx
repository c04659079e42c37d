import { invokeService } from "@forge/bridge";
import { StrictMode, useEffect, useState } from "react";
import { createRoot } from "react-dom/client";
import { useForgeStream } from "./use-forge-stream.js";
import "../../style.css";

const REPLAY = 300; // seconds
const STATUS = { idle: "", waiting: "Asking…", streaming: "Answering…", done: "Done.", stopped: "Stopped." };
const RUNNING = ["waiting", "streaming"];

async function post(path, body) {
  const headers = { "Content-Type": "application/json" };
  const response = await invokeService({ path, method: "POST", headers, body: JSON.stringify(body) });
  if (response.status >= 400) throw new Error(response.error || `The service responded with ${response.status}.`);
  return response.body;
}

async function renew(handle) {
  try {
    return await post("/answers/renew", handle);
  } catch {
    throw new Error("This answer cannot be followed any more. Ask again.");
  }
}

// What the page has to remember in case it is reloaded: the handle of an open answer, or an answer that has ended.
const load = () => JSON.parse(sessionStorage.getItem("answer") ?? "{}");
const save = (answer) => sessionStorage.setItem("answer", JSON.stringify(answer));

function App() {
  const [question, setQuestion] = useState("");
  const [answer, setAnswer] = useState(load);
  const [problem, setProblem] = useState(null);
  const { cancel, ...stream } = useForgeStream(answer.handle, { replaySeconds: REPLAY, renew });
  const { value = "", status, error, stopped, complete } = answer.ended ?? stream;
  const running = RUNNING.includes(status);

  useEffect(() => {
    if (answer.handle && !RUNNING.includes(stream.status) && stream.status !== "idle") save({ ended: stream });
  }, [answer.handle, stream.status]);

  async function ask(event) {
    event.preventDefault();
    setProblem(null);
    try {
      const handle = await post("/answers", { text: question });
      save({ handle });
      setAnswer({ handle });
    } catch (failure) {
      setProblem(failure.message);
    }
  }

  async function stop() {
    if (!(await cancel("The reader has seen enough."))) setProblem("The answer could not be stopped. Try again.");
  }

  let text = STATUS[status] ?? error.message ?? "The answer could not be finished. Ask again.";
  if (status === "done" && !complete) text = "A part of the answer did not arrive. Ask again.";
  const state = problem || status === "failed" || (status === "done" && !complete) ? "failed" : status;

  useEffect(() => {
    document.body.dataset.state = running ? "running" : state;
  }, [running, state]);

  return (
    <>
      <h1>Ask the sprint</h1>
      <p>The answer is made in the app's container, and comes as it is made.</p>
      <form id="ask" onSubmit={ask}>
        <label htmlFor="question">Question</label>
        <input
          id="question"
          required
          maxLength={1000}
          autoComplete="off"
          value={question}
          onChange={(event) => setQuestion(event.target.value)}
        />
        {running ? (
          <button key="stop" type="button" onClick={stop}>
            Stop
          </button>
        ) : (
          <button key="ask">Ask</button>
        )}
      </form>
      <p id="answer" aria-label="Answer" role="region">
        {value}
      </p>
      <p id="status" role="status" title={stopped && `by ${stopped.by}: ${stopped.reason}`}>
        {problem ?? text}
      </p>
    </>
  );
}

createRoot(document.getElementById("app")).render(
  <StrictMode>
    <App />
  </StrictMode>,
);
