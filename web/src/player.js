// Plays a clip or all up to it, frame by frame if asked, beside the true render where there is one.
import { $ } from "./dom.js";
import { lineOf } from "./tree.js";

// The formats of camctrl_jax.camera.formats that are written, the most asked for first.
const FORMATS = [
  "transforms_json", "colmap_text", "colmap", "realestate10k", "tum", "kitti", "gsplat", "opensfm", "open3d_json", "open3d_log",
  "tartanair", "motionctrl", "ac3d", "recammaster", "worldplay", "lingbot",
];
const CALM = matchMedia("(prefers-reduced-motion: reduce)");

export class Player {
  constructor(onFrame) {
    this.onFrame = onFrame;
    this.video = $("video");
    this.truth = $("truth");
    $("camera-format").append(...FORMATS.map((f) => new Option(f.replaceAll("_", " "), f)));
    $("camera-format").addEventListener("change", () => this.links());
    $("play").addEventListener("click", () => (this.video.paused ? this.play() : this.pause()));
    $("scrub").addEventListener("input", () => this.seek(Number($("scrub").value)));
    $("whole-line").addEventListener("change", () => this.load(!this.video.paused));
    $("compare").addEventListener("change", () => this.load(!this.video.paused));
    for (const name of ["timeupdate", "seeked"]) this.video.addEventListener(name, () => this.shown());
    for (const name of ["play", "pause"]) {
      this.video.addEventListener(name, () => ($("play").textContent = this.video.paused ? "Play" : "Pause"));
    }
    // The server renders it when it is first asked for, which takes a while.
    const captions = { loadstart: "True render: being made, which takes some seconds", loadeddata: "True render", error: "True render: it could not be loaded" };
    for (const [name, caption] of Object.entries(captions)) {
      this.truth.addEventListener(name, () => ($("truth-caption").textContent = caption));
    }
    // A looping video starts over alone: the true render is taken along.
    this.video.addEventListener("seeking", () => this.together());
  }

  show(exploration, id) {
    const clip = exploration.clips.find((c) => c.id === id);
    $("player").hidden = !clip;
    if (!clip) {
      this.pause();
      this.clip = null;
      return;
    }
    const changed = this.clip?.id !== id;
    Object.assign(this, { clip, exploration, fps: exploration.fps, line: lineOf(exploration.clips, id) });
    $("player-title").textContent = `Clip ${Number(clip.name)}`;
    $("clip-said").textContent = [clip.said, clip.prompt && `prompt: ${clip.prompt}`, `seed ${clip.seed}`, `${clip.steps} steps`]
      .filter(Boolean).join("; ");
    $("compare-box").hidden = !clip.truth;
    this.links();
    if (changed) this.load(!CALM.matches);
  }

  load(playing) {
    const whole = $("whole-line").checked;
    const { clip } = this;
    this.frames = whole ? clip.first + clip.frames : clip.frames;
    this.video.src = whole ? `${clip.video}?line=true` : clip.video;
    // The true render is of one clip.
    const comparing = Boolean($("compare").checked && clip.truth && !whole);
    $("compare").disabled = whole;
    $("compare-note").hidden = !whole;
    $("videos").classList.toggle("two", comparing);
    $("truth-box").hidden = !comparing;
    $("video-caption").hidden = !comparing;
    if (comparing) this.truth.src = clip.truth;
    else this.truth.removeAttribute("src");
    $("scrub").max = this.frames - 1;
    $("scrub").value = 0;
    this.shown(0);
    if (playing) this.play();
  }

  play() {
    this.video.play().catch(() => {}); // the browser may not let it play by itself
    if (!$("truth-box").hidden) this.truth.play().catch(() => {});
  }

  pause() {
    this.video.pause();
    this.truth.pause();
  }

  together() {
    if ($("truth-box").hidden) return;
    if (Math.abs(this.truth.currentTime - this.video.currentTime) > 0.5 / this.fps) this.truth.currentTime = this.video.currentTime;
  }

  seek(frame) {
    this.pause();
    this.video.currentTime = (frame + 0.5) / this.fps;
    this.together();
    this.shown(frame);
  }

  shown(frame = Math.min(this.frames - 1, Math.floor(this.video.currentTime * this.fps + 1e-3))) {
    if (!this.clip) return;
    if (document.activeElement !== $("scrub") || !this.video.paused) $("scrub").value = frame;
    $("frame-number").textContent = `${frame + 1} of ${this.frames}`;
    $("scrub").setAttribute("aria-valuetext", `frame ${frame + 1} of ${this.frames}`);
    const along = $("whole-line").checked ? frame : this.clip.first + frame;
    const of = this.line.findLast((c) => c.first <= along) ?? this.clip;
    const at = along - of.first;
    this.onFrame(of.cameras.world_from_camera[at], of.cameras.intrinsics[at]);
  }

  links() {
    const { clip, exploration } = this;
    if (!clip) return;
    const base = `/v1/clips/${clip.id}`;
    const format = $("camera-format").value;
    $("get-clip").href = `${clip.video}?download=true`;
    $("get-line").href = `${clip.video}?line=true&download=true`;
    $("get-cameras").href = `${base}/cameras?format=${format}&line=false`;
    $("get-line-cameras").href = `${base}/cameras?format=${format}`;
    $("get-ply").href = `${base}/scene?format=ply`;
    $("get-glb").href = `${base}/scene?format=glb`;
    $("get-project").href = `/v1/explorations/${exploration.id}/project`;
    for (const item of document.querySelectorAll("#downloads .scene")) item.hidden = !clip.scene;
    $("make-scene").hidden = Boolean(clip.scene);
    $("downloads-note").hidden = Boolean(clip.scene);
  }
}
