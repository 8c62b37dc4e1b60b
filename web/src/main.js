import * as api from "./api.js";
import { $, say } from "./dom.js";
import { Explorations } from "./explorations.js";
import { flyWith } from "./fly.js";
import { Form } from "./form.js";
import { Jobs } from "./jobs.js";
import { Player } from "./player.js";
import { goTo, guarded, news, on, problem } from "./telling.js";
import { drawTree, lineOf } from "./tree.js";
import { View } from "./view.js";

for (const link of document.querySelectorAll(".skip")) {
  link.addEventListener("click", (event) => {
    event.preventDefault(); // the address names the exploration
    goTo(link.hash.slice(1));
  });
}

// ---- 3-D view

let view = null;
try {
  view = new View($("view"));
  flyWith(view, $("pad"));
} catch {
  $("view").hidden = true;
  $("no-view").hidden = false;
  for (const id of ["view-help", "view-tools", "pad-box", "add-key-2"]) $(id).hidden = true;
}

// ---- What there is, and what is shown of it

const shown = { past: "", points: null, made: null }; // cameras, points of which clip, and the job that made points last
const explorations = new Explorations({
  onDraw: () => draw(),
  onMoved: ({ other, begun }) => {
    const previewed = form.move(other);
    if (!begun) view?.setComing([], []);
    return previewed.then(() => (other || !view?.flown) && frameAll());
  },
});
const form = new Form({ explorations, view, onBegin: () => draw(), frameAll });
const jobs = new Jobs({
  onNews: (text, job) => {
    const done = job.state === "done";
    if (done && job.kind === "scene") shown.made = job;
    news(text, done && job.kind !== "scene" ? job.clip : null, done ? job.remarks : []); // what did not end well stays listed
  },
  onProblem: problem,
  onLost: () => explorations.lost(),
  onEnd: guarded((job) => {
    if (job.kind === "scene" && explorations.isOpen(job.exploration)) shown.points = null; // they are read anew
    return explorations.ended(job);
  }),
});
explorations.jobs = jobs;

const NEAR = 12; // clips with several thumbnails; a longer line has one of each
function drawPast() {
  const { open, clips } = explorations;
  const now = JSON.stringify([open?.id, open?.current, clips.map((c) => c.id)]);
  if (!view || shown.past === now) return;
  shown.past = now;
  const ids = open ? lineOf(clips, open.current).map((c) => c.id) : [];
  const line = new Set(ids);
  const near = new Set(ids.slice(-NEAR));
  view.setPast(
    clips.map((clip) => {
      const last = clip.frames - 1;
      const frames = near.has(clip.id) ? [0, Math.round(last / 2), last] : [last];
      const thumbnails = Object.fromEntries(frames.map((k) => [k, `${clip.thumbnail}?frame=${k}`]));
      return { poses: clip.cameras.world_from_camera, intrinsics: clip.cameras.intrinsics, current: line.has(clip.id), thumbnails };
    }),
  );
}

function frameAll() {
  view?.overview([...explorations.clips.flatMap((c) => c.cameras.world_from_camera), ...view.coming]);
}

const keyHere = () => news(form.path.addKey(view.pose()));
on("to-last", "click", () => view.goTo(form.lastCamera().start, form.lastCamera().lens));
on("to-all", "click", async () => {
  if (!form.path.answer) await form.path.preview(); // else it would be framed for a path that is no more
  frameAll();
});
on("add-key", "click", keyHere);
on("add-key-2", "click", keyHere);
on("show-past", "change", () => view.show("past", $("show-past").checked));
on("show-points", "change", () => view.show("points", $("show-points").checked));
on("view", "keydown", (event) => event.code === "KeyK" && !event.repeat && keyHere());

// ---- Clips

const player = new Player((pose, lens) => view?.setFrame(pose, lens));

async function showPoints(clip) {
  const wanted = clip?.scene ? clip.id : null;
  if (!view || shown.points === wanted) return;
  shown.points = wanted;
  const buffer = wanted ? await api.points(wanted) : null;
  if (shown.points === wanted) {
    const count = view.setPoints(buffer);
    if (!count) return;
    news(`${count.toLocaleString("en")} points are shown.`, "view", shown.made?.clip === wanted ? shown.made.remarks : []);
    if (!view.flown) frameAll();
  }
}

function select(id) {
  explorations.selected = id;
  draw();
}

function draw() {
  const { open, clips, current, selected } = explorations;
  const clip = clips.find((c) => c.id === selected) ?? null;
  form.draw();
  $("tree-box").hidden = !open;
  $("undo").disabled = !current?.parent;
  $("branch").disabled = !clip || clip.id === open.current;
  // Where the weights are a student's themselves, there is nothing to refine its clips with.
  const isQuick = (each) => each.model === "student" && !form.model?.student;
  const refinable = clip !== null && isQuick(clip);
  const left = !refinable && document.activeElement === $("refine");
  $("refine").hidden = !refinable;
  if (left) $("player-title").focus({ preventScroll: true }); // else it is nowhere
  const beside = clip?.parent ? "a clip beside it" : "an exploration like this one";
  say("refine-note", refinable ? `A quick look by the student. Refining makes ${beside} with all steps, on the same path, with the same prompt and seed.` : "");
  const mine = !open || open.mine;
  say("clip-why", clip ? whyKept(clip) : "");
  $("delete-clip").disabled = !clip || whyKept(clip) !== "";
  $("delete-exploration").disabled = !mine;
  say("exploration-why", mine ? "" : "Another visitor made this exploration and alone may delete it; you may go on from any of its clips.");
  if (open) drawTree(open, selected, select, isQuick);
  say("no-clips", !open || clips.length ? "" : open.state === "failed"
    ? "The first clip was not made, so nothing can go on from it: begin a new exploration."
    : "The first clip is being made; the next one goes on from it.");
  if (open?.state === "damaged") problem({ message: open.problem ?? "This exploration is damaged." });
  player.show(open ?? { clips: [] }, selected);
  drawPast();
  if (!clip) view?.setFrame(null);
  showPoints(clip).catch(problem);
}

/** Why a clip cannot be deleted; empty if it can. */
function whyKept(clip) {
  if (!explorations.open.mine) return "Only who made this exploration can delete its clips.";
  if (!clip.parent) return "The first clip goes with the whole exploration only.";
  return explorations.clips.some((c) => c.parent === clip.id) ? "Other clips go on from this one, so it cannot be deleted." : "";
}

on("look", "click", () => {
  const { at } = $("look").dataset;
  news("");
  if (explorations.clips.some((c) => c.id === at)) select(at);
  goTo(at === "view" ? "view" : "player-title");
});

// Another visitor, or another tab, may have gone on meanwhile.
document.addEventListener("visibilitychange", guarded(async () => {
  if (!document.hidden) await explorations.refresh();
}));

// ---- Begin

const NAME = /^[A-Za-z0-9_-]+$/;

await guarded(async () => {
  form.showBegin();
  const [model, presets] = await Promise.all([api.model(), api.presets()]);
  form.setModel(model);
  form.path.setPresets(presets);
  say("facts", `Weights "${model.name}": ${model.width}x${model.height} pixels, ${model.frames} frames, then ${model.added} a clip; on ${model.device}`);
  await explorations.list();
  const wanted = location.hash.slice(1);
  try {
    await explorations.show(NAME.test(wanted) ? wanted : "");
  } catch (error) {
    await explorations.show(""); // of a link to what was deleted
    throw error;
  } finally {
    $("explorations").value = explorations.open?.id ?? "";
  }
})();
addEventListener("hashchange", guarded(async () => {
  await explorations.show(NAME.test(location.hash.slice(1)) ? location.hash.slice(1) : "");
  await explorations.list();
}));
document.documentElement.dataset.ready = "true"; // for those who drive the page
