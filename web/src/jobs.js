// Jobs of an exploration: progress, time left, cancel. They go on without the page; it only listens.
import * as api from "./api.js";
import { $, el, say, time } from "./dom.js";
import { remark } from "./telling.js";

const KINDS = { start: "First clip", extend: "Next clip", scene: "3-D points" };
const kind = (job) => (job.refines ? "Refined clip" : job.model === "student" ? "Quick look" : KINDS[job.kind]);
const NEWS = { running: "being made", failed: "failed; why is said with the jobs" };
const TITLE = document.title;
export const active = (job) => job.state === "queued" || job.state === "running";

export function words(job) {
  if (job.state === "queued") {
    return job.position ? `waiting, ${job.position} ${job.position === 1 ? "job" : "jobs"} before it` : "waiting";
  }
  if (job.state === "failed") return `failed: ${job.error?.message ?? "for an unknown reason"}`;
  if (job.state !== "running") return job.state;
  if (job.stopping) return "stopping at the next step";
  const left = job.seconds_left == null ? "" : `, about ${time(job.seconds_left)} left`;
  return `${job.stage || "running"}${job.steps ? `, step ${job.done} of ${job.steps}` : ""}${left}`;
}

/** This visitor's jobs elsewhere, each with a button that goes there; gives how many there are. */
export function drawOthers(jobs, exploration, onOpen) {
  const others = jobs.filter((job) => active(job) && job.exploration !== exploration);
  $("others-box").hidden = !others.length;
  $("others").replaceChildren(
    ...others.map((job) => {
      const button = el("button", { type: "button", className: "quiet" }, "Open");
      button.addEventListener("click", () => onOpen(job.exploration));
      return el("li", {}, el("p", {}, `${kind(job)} (${job.said}): ${words(job)}`), button);
    }),
  );
  return others.length;
}

export class Jobs {
  constructor({ onEnd, onLost, onProblem, onNews }) {
    Object.assign(this, { onEnd, onLost, onProblem, onNews });
    this.jobs = new Map();
    this.rows = new Map();
    this.dismissed = new Set(); // the server tells of the last that failed for as long as there is one
    this.stop = () => {};
    this.heard = null;
  }

  /** Takes over the jobs of an exploration, as it was read. */
  set(jobs) {
    const shown = jobs.filter((job) => !this.dismissed.has(job.id) && (active(job) || job.mine));
    this.jobs = new Map(shown.map((job) => [job.id, job]));
    this.listen();
    this.draw();
  }

  add(job) {
    this.jobs.set(job.id, job);
    this.listen();
    this.draw();
  }

  take(job) {
    const before = this.jobs.get(job.id);
    if (!before || before.version > job.version) return;
    this.jobs.set(job.id, { ...job, stopping: before.stopping });
    if (before.state !== job.state) this.onNews(`${kind(job)}: ${NEWS[job.state] ?? job.state}`, job);
    if (active(before) && !active(job)) {
      if (job.state === "done") this.jobs.delete(job.id);
      this.onEnd(job);
    }
    this.listen();
    this.draw();
  }

  // A browser opens few connections to one host, so one job is listened to: the one that ends first.
  listen() {
    const going = [...this.jobs.values()].filter(active).sort((a, b) => (a.position ?? 0) - (b.position ?? 0));
    const next = going[0]?.id ?? null;
    if (next === this.heard) return;
    this.stop();
    this.heard = next;
    this.stop = next ? api.events(next, (job) => this.take(job), () => this.lost(next)) : () => {};
  }

  lost(id) {
    if (this.heard !== id) return;
    this.heard = null;
    // What became of it is read anew, until the server answers.
    setTimeout(async () => {
      if (this.heard !== null) return;
      if (!(await this.onLost())) this.lost(null);
    }, 2000);
  }

  draw() {
    const shown = [...this.jobs.values()];
    const running = shown.find((job) => job.state === "running" && job.steps);
    document.title = running ? `${running.done}/${running.steps} Explore` : TITLE; // for who looks at another tab meanwhile
    $("jobs-box").hidden = !shown.length;
    $("jobs-box").classList.toggle("going", shown.some(active)); // stays in sight
    for (const [id, row] of this.rows) {
      if (this.jobs.has(id)) continue;
      row.remove();
      this.rows.delete(id);
    }
    for (const job of shown) {
      if (!this.rows.has(job.id)) {
        this.rows.set(job.id, this.row(job));
        $("jobs").append(this.rows.get(job.id));
      }
      const row = this.rows.get(job.id);
      const [text, bar, button, remarks] = row.children;
      const whose = job.mine ? "" : " of another visitor";
      say(text, `${kind(job)}${whose}${job.said && job.kind !== "scene" ? ` (${job.said})` : ""}: ${words(job)}`);
      remark(remarks, job.remarks ?? []); // some come while it is made
      bar.hidden = !active(job);
      if (job.state === "running" && job.steps) {
        bar.max = job.steps;
        bar.value = job.done;
      }
      say(button, active(job) ? "Cancel" : "Dismiss");
      button.hidden = active(job) && !job.mine;
      button.disabled = active(job) && Boolean(job.stopping);
    }
  }

  row(job) {
    const button = el("button", { type: "button", className: "quiet" });
    button.addEventListener("click", async () => {
      if (!active(this.jobs.get(job.id))) {
        this.jobs.delete(job.id);
        this.dismissed.add(job.id);
        return this.draw();
      }
      this.jobs.get(job.id).stopping = true;
      this.draw();
      try {
        this.take(await api.cancel(job.id));
      } catch (problem) {
        this.jobs.get(job.id).stopping = false;
        this.draw();
        this.onProblem(problem);
      }
    });
    return el("li", {}, el("p"), el("progress", { "aria-label": `${kind(job)}, ${job.said}` }), button, el("ul", { className: "note" }));
  }
}
