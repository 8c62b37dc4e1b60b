// The path of the next clip: read from the form, previewed by the server before anything is computed.
import { previewPath } from "./api.js";
import AMOUNTS from "./amounts.json";
import { $, after, el, number } from "./dom.js";
import { adjusted, whereabouts } from "./geometry.js";

const MOST_TEXT = 2_000_000; // characters of a pose file, of the API
const chosen = (name) => document.querySelector(`input[name=${name}]:checked`).value;

export class Path {
  /** `place()` gives {exploration, parent, worlds_seed, start, lens}: where the path begins; `waiting`
   * as long as that depends on a clip that is being made. `onPreview(answer, refusal, waiting)` has one of the three. `eye()` gives the pose of the 3-D view, if there is one. */
  constructor({ place, eye, onPreview, onKeys, onProblem }) {
    Object.assign(this, { place, eye, onPreview, onKeys, onProblem });
    this.keys = [];
    this.file = null;
    this.asked = 0;
    this.answer = null; // of the server, to what the form says now, and the request that it answers
    this.going = null; // the newest preview, which older ones wait for
    this.soon = after(350, () => this.preview());
    $("path").addEventListener("input", (event) => {
      if (!event.target.id.startsWith("move-")) this.changed();
    });
    for (const radio of document.querySelectorAll("input[name=source]")) {
      radio.addEventListener("change", () => this.showSource());
    }
    $("preset").addEventListener("change", () => this.describePreset());
    $("pose-file").addEventListener("change", () => this.readFile());
    $("clear-keys").addEventListener("click", () => this.setKeys([]));
    $("move-keys").addEventListener("click", () => this.moveKeys());
    $("to-keys").addEventListener("click", () => this.toKeys());
    this.showSource();
  }

  setPresets({ presets, help }) {
    this.presets = new Map(presets.map((p) => [p.name, p.summary]));
    $("preset").replaceChildren(...presets.map((p) => new Option(p.name.replaceAll("_", " "), p.name)));
    $("sentence-help").textContent = help;
    this.describePreset();
  }

  // What some moves are given by (handheld ones, spirals) is no amount; those are scaled as a whole.
  get amount() {
    return AMOUNTS[$("preset").value.split("_")[0]];
  }

  describePreset() {
    $("preset-help").textContent = this.presets?.get($("preset").value) ?? "";
    $("amount-box").hidden = !this.amount;
    $("amount-unit").textContent = this.amount?.unit ?? "";
    $("amount").value = ""; // 2 of metres are not 2 of degrees
  }

  showSource() {
    for (const part of document.querySelectorAll("[data-source]")) part.hidden = part.dataset.source !== chosen("source");
    $("adjust").hidden = chosen("source") === "own";
  }

  /** The choices fit where the path begins: only a new exploration of a world has a path of its own. */
  offerOwn(offered) {
    $("own-box").hidden = !offered;
    if (!offered && chosen("source") === "own") this.choose("sentence");
  }

  choose(source) {
    document.querySelector(`input[name=source][value=${source}]`).checked = true;
    this.showSource();
  }

  changed() {
    this.asked += 1; // an answer that is on its way is to what the form no longer says
    this.answer = this.going = null;
    this.soon.ask();
  }

  async readFile() {
    const [file] = $("pose-file").files;
    this.file = null;
    if (file && file.size > MOST_TEXT) {
      this.onProblem(new Error(`${file.name} has ${(file.size / 1e6).toFixed(1)} MB; a pose file is text of up to ${MOST_TEXT / 1e6} MB.`));
    } else if (file) this.file = { name: file.name, text: await file.text() };
    this.changed();
  }

  // Key frames

  /** Adds a key frame; gives what is to be said about it. */
  addKey(pose) {
    this.choose("keys");
    this.setKeys([...this.keys, pose]);
    return `Key frame ${this.keys.length}: ${whereabouts(pose, this.place().start)}.`;
  }

  setKeys(keys) {
    this.keys = keys;
    const { start } = this.place();
    $("keys").replaceChildren(
      ...keys.map((pose, index) => {
        const button = (text, what, act) => {
          const made = el("button", { type: "button", className: "quiet", "aria-label": `${what} ${index + 1}` }, text);
          made.addEventListener("click", act);
          return made;
        };
        const go = button("Look", "Look from key frame", () => this.onKeys(this.keys, pose));
        const put = button("Put here", "Put here key frame", () => {
          this.setKeys(this.keys.map((other, at) => (at === index ? this.eye() : other)));
          $("keys").children[index].querySelectorAll("button")[1].focus();
        });
        const remove = button("Delete", "Delete key frame", () => {
          this.setKeys(this.keys.filter((_, other) => other !== index));
          ($("keys").querySelectorAll("button")[0] ?? $("add-key-2")).focus();
        });
        return el("li", {}, el("span", {}, `${index + 1}. ${whereabouts(pose, start)}`), go, ...(this.eye() ? [put] : []), remove);
      }),
    );
    this.onKeys(keys);
    this.changed();
  }

  moveKeys() {
    const by = { right: number("move-right"), up: number("move-up"), forward: number("move-forward"), turn: number("move-turn") };
    const { start } = this.place();
    this.setKeys(adjusted([start, ...this.keys], by).slice(1));
    for (const id of ["move-right", "move-up", "move-forward", "move-turn"]) $(id).value = 0;
  }

  toKeys() {
    const poses = this.answer?.cameras.world_from_camera;
    if (!poses) return this.onProblem(new Error("There is no path yet: preview one first."));
    const count = Math.min(4, poses.length - 1);
    const keys = Array.from({ length: count }, (_, k) => poses[Math.round(((k + 1) * (poses.length - 1)) / count)]);
    for (const id of ["scale", "length", "turning"]) $(id).value = "";
    this.choose("keys");
    this.setKeys(keys);
  }

  // The request

  read() {
    const source = chosen("source");
    const request = {};
    if (source === "sentence") {
      request.path = $("sentence").value.trim();
      if (!request.path) throw new Error("The sentence is empty: say how the camera moves, for example dolly in 1 m.");
    } else if (source === "preset") {
      const [amount, { before = "", said } = {}] = [number("amount"), this.amount];
      request.path = $("preset").value;
      if (amount !== null && said) request.path = `${request.path} ${before} ${amount} ${said}`.replace(/[_ ]+/g, " ");
    } else if (source === "file") {
      if (!this.file) throw new Error("Choose a pose file.");
      request.pose_file = { ...this.file };
      const range = [number("from-frame"), number("to-frame")];
      if (range.some((end) => end !== null)) request.pose_file.range = range;
    } else if (source === "keys") {
      if (!this.keys.length) throw new Error("No key frame yet: fly to a place in the 3-D view and add one there.");
      request.key_frames = [this.place().start, ...this.keys].map((pose) => ({ world_from_camera: pose }));
    }
    const scale = number("scale");
    if (source !== "own" && scale && scale !== 1) request.scale = scale;
    return request;
  }

  /** Asks the server what the path would be; gives its answer, or null where the form says none. */
  preview() {
    this.soon.forget();
    this.going = this.ask(++this.asked);
    return this.going;
  }

  async ask(asked) {
    const { exploration, parent, worlds_seed, waiting } = this.place();
    if (waiting) {
      this.answer = null;
      this.onPreview(null, null, waiting);
      return null;
    }
    try {
      const where = Object.fromEntries(Object.entries({ exploration, parent, worlds_seed }).filter(([, v]) => v != null));
      let request = this.read();
      let answer = await previewPath({ ...request, ...where });
      const scaled = this.scaledTo(answer, request);
      if (scaled) {
        request = scaled;
        answer = await previewPath({ ...request, ...where });
      }
      if (asked !== this.asked) return this.going; // the form, or where the path begins, has changed since
      this.answer = { ...answer, request };
      this.onPreview(answer);
      return this.answer;
    } catch (problem) {
      if (asked !== this.asked) return this.going;
      this.answer = null;
      this.onPreview(null, problem.message);
      return null;
    }
  }

  /** The request with the length and the turning that the form asks for, after an answer to it; null where it asks for
   * none. Where only the length is, the words of the path stay its words. */
  scaledTo({ cameras, length_m, rotation_deg }, request) {
    const [length, turning] = [number("length"), number("turning")];
    if (chosen("source") === "own" || (length === null && turning === null)) return null;
    if (length && length_m < 1e-6) throw new Error("This path does not move, so that it cannot be scaled to a length.");
    if (turning && rotation_deg < 1e-3) throw new Error("This path does not turn, so that it cannot be scaled to a turning.");
    if (turning === null && length) return { ...request, scale: ((request.scale ?? 1) * length) / length_m };
    const poses = adjusted(cameras.world_from_camera, {
      scale: length === null ? 1 : length / (length_m || 1),
      angles: turning === null ? 1 : turning / (rotation_deg || 1),
    });
    return { cameras: { world_from_camera: poses, intrinsics: cameras.intrinsics, relative_to: "last_frame", metric: true } };
  }
}
