import { invokeService, realtime } from "@forge/bridge";
import "../../style.css";

const [start, bar, percent, status] = ["start", "bar", "percent", "status"].map((id) => document.getElementById(id));

function show(state, text, share) {
  document.body.dataset.state = state;
  status.textContent = text;
  bar.value = share;
  percent.textContent = `${Math.round(share * 100)} %`;
  // Not disabled while it has the focus, which would be lost.
  start.setAttribute("aria-disabled", String(state === "running"));
}

async function makeReport() {
  const id = crypto.randomUUID();
  let share = 0;
  let finish;
  const finished = new Promise((resolve) => (finish = resolve));

  show("running", "Starting…", 0);
  // Before the job starts: nothing that it reports can be missed.
  const subscription = await realtime.subscribe(`job-${id}`, ({ state, done = 0, of, step }) => {
    // An event can come twice, and late: the bar never goes back.
    share = Math.max(share, done / of);
    if (state === "running") show("running", `${step}…`, share);
    else finish(state);
  });
  try {
    const answer = await invokeService({
      path: "/jobs",
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ id }),
    });
    if (answer.status !== 202) throw new Error(answer.error || `The service answered ${answer.status}.`);
    if ((await finished) !== "done") throw new Error("The report could not be made. Try again.");
    show("done", "The report is ready.", 1);
  } catch (error) {
    show("failed", error.message, share);
  } finally {
    await subscription.unsubscribe();
  }
}

start.addEventListener("click", () => {
  if (document.body.dataset.state !== "running") makeReport().catch((error) => show("failed", error.message, 0));
});
show("idle", status.textContent, 0);
