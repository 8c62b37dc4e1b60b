// The form: what an exploration begins from, the path of the next clip, and the request to make it.
import * as api from "./api.js";
import { $, el, number, say } from "./dom.js";
import { active } from "./jobs.js";
import { Path } from "./path.js";
import { goTo, news, on, problem, remark } from "./telling.js";

const START = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]];
const LENS = [1, 1.6667, 0.5, 0.5];
const GUIDANCE = ["text", "camera", "history"];
const NOTES = {
  world: "Left empty: the world's own caption.",
  picture: "What the picture shows and what happens; may be empty.",
  prompt: "",
};

const begin = () => document.querySelector("input[name=begin]:checked").value;

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

/** What the weights know of paths. */
function trained({ trained_on: { length_m, rotation_deg }, frames: first, added }, goesOn) {
  const frames = goesOn ? added : first; // a shorter clip goes as much less far
  const short = (x) => Number(((x * frames) / first).toPrecision(2));
  const range = ([from, to], unit) => `${short(from)} to ${short(to)} ${unit}`;
  const parts = [length_m && `moved ${range(length_m, "m")}`, rotation_deg && `turned ${range(rotation_deg, "degrees")}`];
  const said = parts.filter(Boolean).join(" and ");
  return said && `In training, most clips of ${frames} frames ${said}.`;
}

/** Of a student only the steps it was made for are offered, and no guidance, which it holds already. */
function offerStudent({ said, valid_steps }, usual) {
  const valid = valid_steps.map((steps) => el("option", { value: String(steps) }, String(steps)));
  $("steps").replaceWith(el("select", { id: "steps" }, el("option", { value: "" }, `usual (${usual})`), ...valid));
  for (const kind of GUIDANCE) $(`guidance-${kind}`).closest("label").hidden = true;
  say("student", `These weights are a student: ${said}.`);
}

function options(quick) {
  const request = quick ? { model: "student" } : {};
  if (number("seed") !== null) request.seed = number("seed");
  if (quick) return request; // steps and guidance are asked of the weights that it is a student of
  if (number("steps") !== null) request.steps = number("steps");
  const guidance = {};
  for (const kind of GUIDANCE) if (number(`guidance-${kind}`) !== null) guidance[kind] = number(`guidance-${kind}`);
  if (Object.keys(guidance).length) request.guidance = guidance;
  return request;
}

export class Form {
  /** `view` may be null; `onBegin()` is called after another beginning was chosen, `frameAll()` shows the whole path. */
  constructor({ explorations, view, onBegin, frameAll }) {
    Object.assign(this, { explorations, onBegin });
    this.model = null;
    this.warned = ""; // the warnings that were there to be read
    this.wanted = null; // what was last asked for
    this.used = null; // the key frames that it was asked for with
    this.path = new Path({
      place: () => this.place(),
      eye: () => view?.pose(),
      onKeys: (keys, look) => {
        const { lens } = this.lastCamera();
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
        remark($("remarks"), answer?.remarks ?? []);
      },
    });
    for (const radio of document.querySelectorAll("input[name=begin]")) radio.addEventListener("change", () => this.showBegin());
    on("worlds-seed", "input", () => this.path.changed());
    on("picture", "change", () => this.showPicture());
    on("another", "click", () => {
      $("worlds-seed").value = 1_000_000 + Math.floor(Math.random() * 1_000_000); // worlds that no weights were trained on
      this.path.changed();
    });
    on("preview-now", "click", async () => {
      if (!(await this.path.preview())) return;
      frameAll();
      if ($("view").getBoundingClientRect().bottom < 60) goTo("view"); // on a phone it is far above
    });
    on("form", "submit", (event) => {
      event.preventDefault();
      return this.submit(false);
    });
    on("quick", "click", () => this.submit(true));
  }

  lastCamera() {
    const clip = this.explorations.current;
    return clip
      ? { start: clip.cameras.world_from_camera.at(-1), lens: clip.cameras.intrinsics.at(-1) }
      : { start: START, lens: this.path?.answer?.cameras.intrinsics[0] ?? LENS };
  }

  place() {
    const { open, current } = this.explorations;
    const { start, lens } = this.lastCamera();
    if (open && !current) return { waiting: true, start, lens };
    if (open) return { exploration: open.id, parent: open.current, start, lens };
    return { worlds_seed: begin() === "world" ? number("worlds-seed") : null, start, lens };
  }

  setModel(model) {
    this.model = model;
    $("picture-shown").style.aspectRatio = `${model.width} / ${model.height}`;
    $("steps").placeholder = String(model.steps);
    for (const kind of GUIDANCE) $(`guidance-${kind}`).placeholder = String(model.guidance[kind] ?? "usual");
    if (model.student) offerStudent(model.student, model.steps);
    $("quick").hidden = !model.quick;
    if (model.quick) say("quick-note", `A quick look takes ${model.quick.steps} ${model.quick.steps === 1 ? "step" : "steps"} instead of ${model.steps}, by a student; it can be refined afterwards.`);
    document.querySelector("input[name=begin][value=picture]").disabled = !model.image;
  }

  draw() {
    const { open, current } = this.explorations;
    const fresh = !open;
    $("begin").hidden = !fresh;
    $("form-title").textContent = fresh ? "New exploration" : current ? `Next clip, after clip ${Number(current.name)}` : "Next clip";
    $("prompt-note").textContent = fresh ? NOTES[begin()] : "Left empty: as the clip before.";
    this.allow(fresh || Boolean(current));
    this.path.offerOwn(fresh && begin() === "world");
    if (this.model) say("preview-trained", trained(this.model, Boolean(current)));
  }

  /** The next clip goes on from elsewhere: gives a promise of the preview from there. */
  move(other) {
    // Key frames that a clip was made of have had their turn; others were drawn meanwhile and stay.
    this.path.setKeys(other || this.path.keys === this.used ? [] : this.path.keys);
    return this.path.preview();
  }

  showBegin() {
    for (const part of document.querySelectorAll("[data-begin]")) part.hidden = part.dataset.begin !== begin();
    if (!$("picture-shown").src) $("picture-shown").hidden = true;
    this.onBegin();
    this.path.changed();
  }

  showPicture() {
    const [file] = $("picture").files;
    const limit = this.model?.limits.image_bytes;
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
  }

  allow(allowed) {
    for (const id of ["generate", "quick"]) $(id).disabled = !allowed;
  }

  /** Asks for the clip; `quick`: as a quick look. */
  async submit(quick) {
    const { explorations, path } = this;
    const { open, opening } = explorations;
    const before = path.answer;
    const answer = before ?? (await path.preview());
    if (explorations.open?.id !== open?.id) return; // nobody asked for a clip of the one that was opened meanwhile
    if (!answer) throw new Error("The path is not one yet; what is wrong is said below it.");
    // Compute is spent after the warnings were there to be read, never together with them.
    const warnings = JSON.stringify(answer.warnings);
    if (!before && answer.warnings.length && warnings !== this.warned) {
      this.warned = warnings;
      news(`Please read the warnings; ${quick ? "Quick look" : "Generate"} again goes on with them.`);
      return;
    }
    const prompt = $("prompt").value.trim();
    const request = { ...answer.request, ...options(quick) };
    const wanted = JSON.stringify([explorations.open?.current ?? begin(), prompt, request]);
    if (open && wanted === this.wanted && [...explorations.jobs.jobs.values()].some((job) => active(job) && job.mine)) {
      throw new Error("This very clip is being made already. Change its path, prompt or seed for another one, or cancel it.");
    }
    this.allow(false);
    try {
      if (open) await this.extend(request, prompt, wanted);
      else await this.start(request, prompt, opening);
    } finally {
      this.allow(!explorations.open || Boolean(explorations.current));
    }
  }

  async extend(request, prompt, wanted) {
    const { id, current } = this.explorations.open;
    if (prompt) request.prompt = prompt;
    this.used = this.path.keys;
    const job = await api.extend(id, { ...request, parent: current });
    this.wanted = wanted;
    news("The next clip is in the queue.");
    await this.explorations.listJob(id, job);
  }

  async start(request, prompt, opening) {
    const picture = begin() === "picture" ? $("picture").files[0] : null;
    if (begin() === "picture" && !picture) throw new Error("Choose a picture.");
    if (begin() === "prompt" && !prompt) throw new Error("Write a prompt.");
    if (begin() === "world") request.worlds_seed = number("worlds-seed") ?? 0;
    if ($("title").value.trim()) request.title = $("title").value.trim();
    this.explorations.begin(await api.start({ ...request, prompt }, picture), opening);
    news("The first clip is in the queue.");
    await this.explorations.list();
  }
}
