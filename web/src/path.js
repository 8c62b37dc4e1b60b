// The path of the next clip: read from the form, previewed by the server before anything is computed.
import { Refused, previewPath } from "./api.js";
import { $, after, el, number } from "./dom.js";
import { adjusted, parts, toMatrix } from "./geometry.js";

const START = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]];
const chosen = (name) => document.querySelector(`input[name=${name}]:checked`).value;

export class Path {
  /** `place()` gives {exploration, parent, worlds_seed, start, lens}: where the path begins. */
  constructor({ place, onPreview, onKeys, onProblem }) {
    Object.assign(this, { place, onPreview, onKeys, onProblem });
    this.keys = [];
    this.file = null;
    this.asked = 0;
    this.answer = null; // of the server, to what the form says now
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

  describePreset() {
    $("preset-help").textContent = this.presets?.get($("preset").value) ?? "";
    const turns = /^(pan|tilt|roll|look|orbit|swing)/.test($("preset").value);
    $("unit").value = turns ? "deg" : "m";
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
    this.answer = null;
    this.request = null;
    this.soon();
  }

  async readFile() {
    const [file] = $("pose-file").files;
    this.file = null;
    if (file && file.size > 20e6) this.onProblem(new Error(`${file.name} has ${(file.size / 1e6).toFixed(0)} MB; pose files are text of up to 20 MB.`));
    else if (file) this.file = { name: file.name, text: await file.text() };
    this.changed();
  }

  // Key frames

  addKey(pose) {
    this.choose("keys");
    this.setKeys([...this.keys, pose]);
  }

  setKeys(keys) {
    this.keys = keys;
    const from = parts(toMatrix(this.place().start)).position;
    $("keys").replaceChildren(
      ...keys.map((pose, index) => {
        const far = parts(toMatrix(pose)).position.distanceTo(from);
        const remove = el("button", { type: "button", className: "quiet", "aria-label": `Delete key frame ${index + 1}` }, "Delete");
        remove.addEventListener("click", () => {
          this.setKeys(this.keys.filter((_, other) => other !== index));
          ($("keys").querySelectorAll("button")[0] ?? $("add-key-2")).focus();
        });
        const go = el("button", { type: "button", className: "quiet", "aria-label": `Look from key frame ${index + 1}` }, "Look");
        go.addEventListener("click", () => this.onKeys(this.keys, pose));
        return el("li", {}, el("span", {}, `Key frame ${index + 1}: ${far.toFixed(2)} m from the start`), go, remove);
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
    for (const [id, value] of [["scale", 1], ["length", ""], ["turning", ""]]) $(id).value = value;
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
      const amount = number("amount");
      request.path = $("preset").value;
      if (amount) request.path = `${request.path.replaceAll("_", " ")} ${amount} ${$("unit").value}`;
    } else if (source === "file") {
      if (!this.file) throw new Error("Choose a pose file.");
      request.pose_file = { ...this.file };
      const range = [number("from-frame"), number("to-frame")];
      if (range.some((end) => end !== null)) request.pose_file.range = range;
    } else if (source === "keys") {
      if (!this.keys.length) throw new Error("Add a key frame: fly to a place in the 3-D view and press K there.");
      request.key_frames = [this.place().start, ...this.keys].map((pose) => ({ world_from_camera: pose }));
    }
    const scale = number("scale");
    if (source !== "own" && scale && scale !== 1) request.scale = scale;
    return request;
  }

  /** Asks the server what the path would be; gives its answer, or null where the form says none. */
  async preview() {
    const asked = ++this.asked;
    try {
      const { exploration, parent, worlds_seed } = this.place();
      const where = Object.fromEntries(Object.entries({ exploration, parent, worlds_seed }).filter(([, v]) => v != null));
      let request = this.read();
      let answer = await previewPath({ ...request, ...where });
      const scaled = this.scaledTo(answer);
      if (scaled) {
        request = { cameras: scaled };
        const { said } = answer;
        answer = { ...(await previewPath({ ...request, ...where })), said };
      }
      if (asked !== this.asked) return this.answer; // the form has changed since
      this.answer = answer;
      this.request = request;
      this.onPreview(answer);
      return answer;
    } catch (problem) {
      if (asked === this.asked) {
        this.answer = null;
        this.onPreview(null, problem instanceof Refused || problem instanceof Error ? problem.message : String(problem));
      }
      return null;
    }
  }

  /** The cameras of an answer with the length and the turning that the form asks for; null where it asks for none. */
  scaledTo({ cameras, length_m, rotation_deg }) {
    const [length, turning] = [number("length"), number("turning")];
    if (chosen("source") === "own" || (length === null && turning === null)) return null;
    if (length && length_m < 1e-6) throw new Error("This path does not move, so that it cannot be scaled to a length.");
    if (turning && rotation_deg < 1e-3) throw new Error("This path does not turn, so that it cannot be scaled to a turning.");
    const poses = adjusted(cameras.world_from_camera, {
      scale: length === null ? 1 : length / (length_m || 1),
      angles: turning === null ? 1 : turning / (rotation_deg || 1),
    });
    return { world_from_camera: poses, intrinsics: cameras.intrinsics, relative_to: "last_frame", metric: true };
  }
}
