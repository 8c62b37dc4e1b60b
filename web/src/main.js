import * as api from "./api.js";
import { $, ask, el, number, say } from "./dom.js";
import { flyWith } from "./fly.js";
import { active, drawOthers, Jobs } from "./jobs.js";
import { Path } from "./path.js";
import { Player } from "./player.js";
import { drawTree, lineOf } from "./tree.js";
import { View } from "./view.js";

const START = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]];
const LENS = [1, 1.6667, 0.5, 0.5];
const state = { model: null, exploration: null, selected: null, pointsOf: null, warned: "" };

// Where something goes wrong, one place says so.
const FIELDS = {
  prompt: "prompt", seed: "seed", steps: "steps", worlds_seed: "worlds-seed", image: "picture", title: "title", scale: "scale",
  guidance: "guidance-text", "guidance.text": "guidance-text", "guidance.camera": "guidance-camera",
  "guidance.history": "guidance-history", path: "sentence", pose_file: "pose-file", "pose_file.range": "from-frame",
};
function problem(error) {
  say("problem", error ? error.message : "");
  for (const id of Object.values(FIELDS)) {
    $(id).removeAttribute("aria-invalid");
    $(id).removeAttribute("aria-errormessage");
  }
  const field = FIELDS[error?.param];
  if (!field) return;
  $(field).setAttribute("aria-invalid", "true");
  $(field).setAttribute("aria-errormessage", "problem");
  const folded = $(field).closest("details");
  if (folded) folded.open = true;
}
const guarded = (act) => async (event) => {
  problem(null);
  try {
    await act(event);
  } catch (error) {
    // A refusal or a mistake is told; a fault of ours (TypeError and others) is for the console too.
    if (!(error instanceof api.Refused) && error.constructor !== Error) console.error(error);
    problem(error);
  }
};
const on = (id, name, act) => $(id).addEventListener(name, guarded(act));

/** Says what happened; `look` is what can now be looked at, a clip by its id or the "view". */
function news(text, look) {
  say("message", text);
  $("look").hidden = !look;
  state.look = look;
}

/** Brings a part of the page to who uses it, by eye and by keyboard. */
function goTo(id) {
  $(id).focus({ preventScroll: true });
  $(id).scrollIntoView({ block: "start" });
}

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

const clips = () => state.exploration?.clips ?? [];
const current = () => clips().find((c) => c.id === state.exploration.current) ?? null;
const lastCamera = () => {
  const clip = current();
  return clip
    ? { start: clip.cameras.world_from_camera.at(-1), lens: clip.cameras.intrinsics.at(-1) }
    : { start: START, lens: path?.answer?.cameras.intrinsics[0] ?? LENS };
};

const NEAR = 12; // clips with several thumbnails; a longer line has one of each
function drawPast() {
  const now = JSON.stringify([state.exploration?.id, state.exploration?.current, clips().map((c) => c.id)]);
  if (!view || state.drawn === now) return;
  state.drawn = now;
  const ids = state.exploration ? lineOf(clips(), state.exploration.current).map((c) => c.id) : [];
  const line = new Set(ids);
  const near = new Set(ids.slice(-NEAR));
  view.setPast(
    clips().map((clip) => {
      const last = clip.frames - 1;
      const shown = near.has(clip.id) ? [0, Math.round(last / 2), last] : [last];
      const thumbnails = Object.fromEntries(shown.map((k) => [k, `${clip.thumbnail}?frame=${k}`]));
      return { poses: clip.cameras.world_from_camera, intrinsics: clip.cameras.intrinsics, current: line.has(clip.id), thumbnails };
    }),
  );
}

function frameAll() {
  view?.overview([...clips().flatMap((c) => c.cameras.world_from_camera), ...view.coming]);
}

const keyHere = () => news(path.addKey(view.pose()));
on("to-last", "click", () => view.goTo(lastCamera().start, lastCamera().lens));
on("to-all", "click", async () => {
  if (!path.answer) await path.preview(); // else it would be framed for a path that is no more
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
  if (!view || state.pointsOf === wanted) return;
  state.pointsOf = wanted;
  const buffer = wanted ? await api.points(wanted) : null;
  if (state.pointsOf === wanted) {
    const count = view.setPoints(buffer);
    if (!count) return;
    news(`${count.toLocaleString("en")} points are shown.`, "view");
    if (!view.flown) frameAll();
  }
}

function select(id) {
  state.selected = id;
  draw();
}

function draw() {
  const { exploration } = state;
  const fresh = !exploration;
  const clip = clips().find((c) => c.id === state.selected) ?? null;
  $("tree-box").hidden = fresh;
  $("begin").hidden = !fresh;
  $("form-title").textContent = fresh ? "New exploration" : current() ? `Next clip, after clip ${Number(current().name)}` : "Next clip";
  const NOTES = { world: "Left empty: the world's own caption.", picture: "What the picture shows and what happens; may be empty.", prompt: "" };
  $("prompt-note").textContent = fresh ? NOTES[begin()] : "Left empty: as the clip before.";
  $("generate").disabled = !fresh && !current();
  $("undo").disabled = !current()?.parent;
  $("branch").disabled = !clip || clip.id === exploration.current;
  const mine = fresh || exploration.mine;
  say("clip-why", clip ? whyKept(clip) : "");
  $("delete-clip").disabled = !clip || whyKept(clip) !== "";
  $("delete-exploration").disabled = !mine;
  say("exploration-why", mine ? "" : "Another visitor made this exploration and alone may delete it; you may go on from any of its clips.");
  path.offerOwn(fresh && begin() === "world");
  if (state.model) say("preview-trained", trained(state.model));
  if (!fresh) drawTree(exploration, state.selected, select);
  const failed = exploration?.state === "failed";
  say("no-clips", fresh || clips().length ? "" : failed
    ? "The first clip was not made, so nothing can go on from it: begin a new exploration."
    : "The first clip is being made; the next one goes on from it.");
  if (exploration?.state === "damaged") problem({ message: exploration.problem ?? "This exploration is damaged." });
  player.show(exploration ?? { clips: [] }, state.selected);
  drawPast();
  if (!clip) view?.setFrame(null);
  showPoints(clip).catch(problem);
}

/** Why a clip cannot be deleted; empty if it can. */
function whyKept(clip) {
  if (!state.exploration.mine) return "Only who made this exploration can delete its clips.";
  if (!clip.parent) return "The first clip goes with the whole exploration only.";
  return clips().some((c) => c.parent === clip.id) ? "Other clips go on from this one, so it cannot be deleted." : "";
}

/** Shows an exploration as it was read. Which clip is gone on from is the page's own: another visitor, whose clips come
 * and whose branches move what the server takes for the current one, takes nobody along. `here` is the clip to go on
 * from, `selected` the one to look at, `begun` whether its first clip was asked for just now. */
function take(exploration, { here, selected = here, begun = false } = {}) {
  const before = state.exploration;
  const other = before?.id !== exploration.id;
  const there = (id) => exploration.clips.some((c) => c.id === id);
  exploration.current = [here, other ? null : before.current, exploration.current].find(there) ?? null;
  const moved = other || before.current !== exploration.current;
  state.exploration = exploration;
  state.selected = [selected, state.selected, exploration.current].find(there) ?? null;
  jobs.set(exploration.jobs);
  draw();
  if (!moved) return;
  // Key frames that a clip was made of have had their turn; others were drawn meanwhile and stay.
  path.setKeys(other || path.keys === state.used ? [] : path.keys);
  if (!begun) view?.setComing([], []);
  path.preview().then(() => (other || !view?.flown) && frameAll());
}

on("branch", "click", async () => {
  take(await api.setCurrent(state.exploration.id, state.selected), { here: state.selected });
  news(`The next clip goes on from clip ${Number(current().name)}.`);
  goTo("form-title");
});
on("undo", "click", async () => {
  const { parent } = current();
  take(await api.setCurrent(state.exploration.id, parent), { here: parent });
  news(`Back at clip ${Number(current().name)}. The other one stays as a branch.`);
});
on("delete-clip", "click", async () => {
  const clip = clips().find((c) => c.id === state.selected);
  if (await ask(`Delete clip ${Number(clip.name)} for good?`)) {
    const here = clip.id === state.exploration.current ? clip.parent : state.exploration.current;
    take(await api.deleteClip(clip.id), { here, selected: clip.parent });
  }
});
on("make-scene", "click", async () => jobs.add(await api.makeScene(state.selected)));

// ---- Explorations

async function open(id) {
  if (id) {
    const found = await api.exploration(id);
    history.replaceState(null, "", `#${id}`);
    return take(found);
  }
  history.replaceState(null, "", location.pathname);
  Object.assign(state, { exploration: null, selected: null });
  jobs.set([]);
  draw();
  path.setKeys([]);
  await path.preview();
  frameAll();
}

async function listExplorations() {
  const found = await api.explorations();
  const size = (e) => (e.state === "ready" ? `${e.clips} ${e.clips === 1 ? "clip" : "clips"}` : e.state);
  const words = (e) => `${e.title || `Exploration ${e.id.slice(0, 6)}`} (${size(e)}${e.mine ? "" : ", not yours"})`;
  const options = [new Option(found.length ? "none: a new one" : "none yet", ""), ...found.map((e) => new Option(words(e), e.id))];
  const told = (list) => JSON.stringify(Array.from(list, (o) => [o.text, o.value]));
  // A list that somebody has open is left alone where nothing changed.
  if (told(options) !== told($("explorations").options)) $("explorations").replaceChildren(...options);
  $("explorations").value = state.exploration?.id ?? "";
  await listOthers();
}

async function listOthers() {
  const there = guarded(async (id) => {
    await open(id);
    await listExplorations();
  });
  const count = drawOthers(await api.jobs(), state.exploration?.id, there);
  clearTimeout(state.again);
  // They are not listened to: a browser opens few connections to one host.
  if (count) state.again = setTimeout(() => listExplorations().catch(problem), 5000);
}

on("explorations", "change", async () => {
  await open($("explorations").value);
  await listOthers();
});
on("new", "click", async () => {
  await open("");
  await listExplorations();
  goTo("form-title");
});
on("delete-exploration", "click", async () => {
  if (!(await ask("Delete this exploration with all its clips for good?"))) return;
  await api.deleteExploration(state.exploration.id);
  await open("");
  await listExplorations();
});

// ---- Jobs

const jobs = new Jobs({
  onNews: (text, job) => news(text, job.state === "done" && job.kind !== "scene" ? job.clip : null),
  onProblem: problem,
  onLost: async () => {
    if (!state.exploration) return true;
    try {
      const waited = [...jobs.jobs.values()].filter((job) => job.mine && active(job) && job.kind === "extend");
      const fresh = await api.exploration(state.exploration.id);
      // One that was made while nobody was listening.
      const known = new Set(clips().map((c) => c.id));
      const made = fresh.clips.find((c) => !known.has(c.id) && waited.some((job) => job.parent === c.parent));
      take(fresh, made?.parent === state.exploration.current ? { here: made?.id } : {});
      problem(null);
      return true;
    } catch (error) {
      problem(error);
      return error.status === 404;
    }
  },
  onEnd: guarded(async (job) => {
    if (job.exploration !== state.exploration?.id) return;
    const kept = [...jobs.jobs.values()];
    const fresh = await api.exploration(job.exploration);
    // What was cancelled or failed stays listed until it is put away.
    const known = new Set(fresh.jobs.map((j) => j.id));
    fresh.jobs.push(...kept.filter((j) => !active(j) && !known.has(j.id)));
    if (job.kind === "scene") state.pointsOf = null;
    const goesOn = job.mine && job.state === "done" && job.kind === "extend" && job.parent === state.exploration.current;
    take(fresh, goesOn ? { here: job.clip } : {});
    await listExplorations();
  }),
});

// ---- The form

/** A warning. What follows the line that points at a word by ^, or a first line that ends with a colon, is all that is
 * understood instead: it is folded away. */
function warning(text) {
  const lines = text.split("\n");
  const pointer = lines.findIndex((line) => /^\s*\^+\s*$/.test(line));
  const shown = pointer < 0 && !lines[0].endsWith(":") ? lines.length : pointer < 0 ? 1 : pointer + 1;
  const folded = lines.slice(shown).join("\n");
  return el(
    "li",
    {},
    el("span", { className: pointer < 0 ? "told" : "pointing" }, lines.slice(0, shown).join("\n")),
    ...(folded ? [el("details", {}, el("summary", {}, "What is understood"), el("pre", { tabIndex: 0 }, folded))] : []),
  );
}

/** Without what to do about it on the command line. */
const forPage = (remark) => remark.replace(/[.;:]? --[a-z].*$/s, "");

const begin = () => document.querySelector("input[name=begin]:checked").value;

const path = new Path({
  place: () => {
    const { start, lens } = lastCamera();
    if (state.exploration && !current()) return { waiting: true, start, lens };
    if (state.exploration) return { exploration: state.exploration.id, parent: state.exploration.current, start, lens };
    return { worlds_seed: begin() === "world" ? number("worlds-seed") : null, start, lens };
  },
  eye: () => view?.pose(),
  onKeys: (keys, look) => {
    const { lens } = lastCamera();
    view?.setKeys(keys.map((pose) => ({ pose, lens })));
    if (look) view?.goTo(look, lens);
  },
  onProblem: problem,
  onPreview: (answer, refusal, waiting) => {
    // The path of a first clip stays to be seen while that is made.
    if (!waiting) view?.setComing(answer?.cameras.world_from_camera ?? [], answer?.cameras.intrinsics ?? []);
    say("preview-sum", answer
      ? `Path: ${answer.length_m.toFixed(2)} m, ${answer.rotation_deg.toFixed(0)} degrees of turning, ${answer.seconds.toFixed(1)} s.`
      : "");
    const warnings = refusal ? [refusal] : (answer?.warnings ?? []).map((w) => w.message);
    $("warnings").replaceChildren(...warnings.map(warning));
    $("remarks").replaceChildren(...(answer?.remarks ?? []).map((r) => el("li", {}, forPage(r))));
  },
});

function showBegin() {
  for (const part of document.querySelectorAll("[data-begin]")) part.hidden = part.dataset.begin !== begin();
  if (!$("picture-shown").src) $("picture-shown").hidden = true;
  draw();
  path.changed();
}
for (const radio of document.querySelectorAll("input[name=begin]")) radio.addEventListener("change", showBegin);
on("worlds-seed", "input", () => path.changed());
on("picture", "change", () => {
  const [file] = $("picture").files;
  const limit = state.model?.limits.image_bytes;
  URL.revokeObjectURL($("picture-shown").src);
  $("picture-shown").removeAttribute("src");
  $("picture-shown").hidden = true;
  if (!file) return;
  if (limit && file.size > limit) {
    $("picture").value = "";
    throw new Error(`${file.name} has ${(file.size / 1e6).toFixed(1)} MB; up to ${(limit / 1e6).toFixed(0)} MB are taken.`);
  }
  $("picture-shown").src = URL.createObjectURL(file);
  $("picture-shown").hidden = false;
});
on("another", "click", () => {
  $("worlds-seed").value = 1_000_000 + Math.floor(Math.random() * 1_000_000); // worlds that no weights were trained on
  path.changed();
});
on("preview-now", "click", async () => {
  if (!(await path.preview())) return;
  frameAll();
  if ($("view").getBoundingClientRect().bottom < 60) goTo("view"); // on a phone it is far above
});
on("look", "click", () => {
  const { look } = state;
  news("");
  if (clips().some((c) => c.id === look)) select(look);
  goTo(look === "view" ? "view" : "player-title");
});

const GUIDANCE = ["text", "camera", "history"];
function options() {
  const request = {};
  for (const id of ["seed", "steps"]) if (number(id) !== null) request[id] = number(id);
  const guidance = {};
  for (const kind of GUIDANCE) if (number(`guidance-${kind}`) !== null) guidance[kind] = number(`guidance-${kind}`);
  if (Object.keys(guidance).length) request.guidance = guidance;
  return request;
}

on("form", "submit", async (event) => {
  event.preventDefault();
  const before = path.answer;
  const answer = before ?? (await path.preview());
  if (!answer) throw new Error("The path is not one yet; what is wrong is said below it.");
  // Compute is spent after the warnings were there to be read, never together with them.
  const warnings = JSON.stringify(answer.warnings);
  if (!before && answer.warnings.length && warnings !== state.warned) {
    state.warned = warnings;
    news("Please read the warnings; Generate again goes on with them.");
    return;
  }
  const prompt = $("prompt").value.trim();
  const request = { ...answer.request, ...options() };
  const wanted = JSON.stringify([state.exploration?.current ?? begin(), prompt, request]);
  if (state.exploration && wanted === state.wanted && [...jobs.jobs.values()].some((job) => active(job) && job.mine)) {
    throw new Error("This very clip is being made already. Change its path, prompt or seed for another one, or cancel it.");
  }
  $("generate").disabled = true;
  try {
    if (state.exploration) {
      if (prompt) request.prompt = prompt;
      state.used = path.keys;
      jobs.add(await api.extend(state.exploration.id, { ...request, parent: state.exploration.current }));
      state.wanted = wanted;
      news("The next clip is in the queue.");
      return;
    }
    const picture = begin() === "picture" ? $("picture").files[0] : null;
    if (begin() === "picture" && !picture) throw new Error("Choose a picture.");
    if (begin() === "prompt" && !prompt) throw new Error("Write a prompt.");
    if (begin() === "world") request.worlds_seed = number("worlds-seed") ?? 0;
    if ($("title").value.trim()) request.title = $("title").value.trim();
    const made = await api.start({ ...request, prompt }, picture);
    history.replaceState(null, "", `#${made.exploration.id}`);
    take(made.exploration, { begun: true });
    if (!jobs.jobs.has(made.job.id)) jobs.add(made.job);
    news("The first clip is in the queue.");
    await listExplorations();
  } finally {
    $("generate").disabled = Boolean(state.exploration && !current());
  }
});

// Another visitor, or another tab, may have gone on meanwhile.
document.addEventListener("visibilitychange", guarded(async () => {
  const id = state.exploration?.id;
  if (document.hidden || !id) return;
  const fresh = await api.exploration(id);
  if (state.exploration?.id === id) take(fresh);
}));

// ---- Begin

const NAME = /^[A-Za-z0-9_-]+$/;

/** What the weights know of paths. */
function trained({ trained_on: { length_m, rotation_deg }, frames: first, added }) {
  const frames = current() ? added : first; // a shorter clip goes as much less far
  const short = (x) => Number(((x * frames) / first).toPrecision(2));
  const range = ([from, to], unit) => `${short(from)} to ${short(to)} ${unit}`;
  const parts = [length_m && `moved ${range(length_m, "m")}`, rotation_deg && `turned ${range(rotation_deg, "degrees")}`];
  const said = parts.filter(Boolean).join(" and ");
  return said && `In training, most clips of ${frames} frames ${said}.`;
}

await guarded(async () => {
  showBegin();
  const [model, presets] = await Promise.all([api.model(), api.presets()]);
  state.model = model;
  path.setPresets(presets);
  say("facts", `Weights "${model.name}": ${model.width}x${model.height} pixels, ${model.frames} frames, then ${model.added} a clip; on ${model.device}`);
  $("picture-shown").style.aspectRatio = `${model.width} / ${model.height}`;
  $("steps").placeholder = String(model.steps);
  for (const kind of GUIDANCE) $(`guidance-${kind}`).placeholder = String(model.guidance[kind] ?? "usual");
  document.querySelector("input[name=begin][value=picture]").disabled = !model.image;
  await listExplorations();
  const wanted = location.hash.slice(1);
  try {
    await open(NAME.test(wanted) ? wanted : "");
  } catch (error) {
    await open(""); // of a link to what was deleted
    throw error;
  } finally {
    $("explorations").value = state.exploration?.id ?? "";
  }
})();
addEventListener("hashchange", guarded(async () => {
  await open(NAME.test(location.hash.slice(1)) ? location.hash.slice(1) : "");
  await listExplorations();
}));
document.documentElement.dataset.ready = "true"; // for those who drive the page
