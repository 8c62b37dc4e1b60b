// The 3-D view: past cameras as frusta with thumbnails, the coming path, key frames, points. Drawn on demand only:
// without a GPU a frame takes up to half a second, and a page that is only looked at should cost nothing.
import {
  BufferAttribute, BufferGeometry, Color, DoubleSide, Group, LineBasicMaterial, LineSegments,
  Mesh, MeshBasicMaterial, PerspectiveCamera, Points, PointsMaterial, Scene, SRGBColorSpace, TextureLoader, Vector3,
  WebGLRenderer,
} from "three";
import { LineMaterial } from "three/addons/lines/LineMaterial.js";
import { LineSegments2 } from "three/addons/lines/LineSegments2.js";
import { LineSegmentsGeometry } from "three/addons/lines/LineSegmentsGeometry.js";
import { PLYLoader } from "three/addons/loaders/PLYLoader.js";
import { corners, FLIP, parts, toMatrix, toRows } from "./geometry.js";

const COLOURS = {
  light: { ground: "#eef1f4", grid: "#c6ced6", past: "#41627f", current: "#0b4f80", coming: "#b3450f", key: "#7a2ea0", frame: "#0f7a43" },
  dark: { ground: "#14191e", grid: "#35414c", past: "#8fb3d1", current: "#cfe6fa", coming: "#ff9a5c", key: "#d9a4f5", frame: "#5ed69a" },
};
const WIDE = 55; // degrees from top to bottom, where no lens is looked through
const LINES = 1.6; // pixels: WebGL's own lines are one of the screen's, which on a phone is a hair
const POINTS = 2.5;

export class View {
  constructor(canvas) {
    this.canvas = canvas;
    this.renderer = new WebGLRenderer({ canvas, antialias: true });
    this.renderer.setPixelRatio(Math.min(devicePixelRatio, 2));
    this.eye = new PerspectiveCamera(WIDE, 1, 0.01, 500);
    this.eye.rotation.order = "YXZ";
    this.scene = new Scene();
    this.world = new Group(); // in the API's axes
    this.world.applyMatrix4(FLIP);
    this.scene.add(this.world);
    this.layers = {};
    this.coming = []; // poses of the path to come
    this.cloud = []; // corners of where most points are, in the API's axes
    this.size = 0.1; // of a frustum, in metres
    this.loader = new TextureLoader();
    this.textures = new Map(); // by URL: clips do not change
    this.drawn = 0;
    this.dark = matchMedia("(prefers-color-scheme: dark)");
    this.dark.addEventListener("change", () => this.recolour());
    new ResizeObserver(() => this.invalidate()).observe(canvas);
    canvas.addEventListener("webglcontextrestored", () => this.invalidate());
    this.again = new Map(); // how each layer is made, for another colour scheme
    this.recolour();
    this.overview([]);
  }

  get colours() {
    return COLOURS[this.dark.matches ? "dark" : "light"];
  }

  recolour() {
    this.scene.background = new Color(this.colours.ground);
    this.scene.remove(this.grid);
    this.grid = floor(this.colours.grid);
    this.scene.add(this.grid);
    for (const make of this.again.values()) make();
    this.invalidate();
  }

  invalidate() {
    if (this.asked) return;
    this.asked = requestAnimationFrame(() => {
      this.asked = 0;
      this.draw();
    });
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!width || !height) return;
    if (this.width !== width || this.height !== height) {
      [this.width, this.height] = [width, height];
      this.renderer.setSize(width, height, false);
      this.eye.aspect = width / height;
      this.zoom();
    }
    this.renderer.render(this.scene, this.eye);
    this.drawn += 1;
    this.canvas.dataset.drawn = this.drawn; // for those who drive the page
  }

  layer(name, fill) {
    const make = () => {
      const old = this.layers[name];
      if (old) {
        old.traverse((o) => {
          o.geometry?.dispose();
          o.material?.dispose();
        });
        this.world.remove(old);
      }
      const group = new Group();
      if (old) group.visible = old.visible;
      fill(group);
      this.layers[name] = group;
      this.world.add(group);
      this.invalidate();
    };
    this.again.set(name, make);
    make();
  }

  show(name, visible) {
    if (this.layers[name]) this.layers[name].visible = visible;
    this.invalidate();
  }

  /** clips: [{poses, intrinsics, current, thumbnails: {frame: url}}], in the exploration's frame. */
  setPast(clips) {
    const all = clips.flatMap((c) => c.poses);
    this.size = Math.min(0.5, Math.max(0.12, 0.16 * spread(all)));
    const wanted = new Set(clips.flatMap((c) => Object.values(c.thumbnails)));
    for (const [url, texture] of this.textures) {
      if (wanted.has(url)) continue;
      texture.dispose();
      this.textures.delete(url);
    }
    this.layer("past", (group) => {
      for (const clip of clips) {
        const colour = clip.current ? this.colours.current : this.colours.past;
        addTrack(group, clip.poses, colour);
        for (const [frame, url] of Object.entries(clip.thumbnails)) {
          const pose = clip.poses[frame];
          if (pose) this.addFrustum(group, pose, clip.intrinsics[frame], colour, this.size, url);
        }
      }
    });
  }

  setComing(poses, intrinsics) {
    this.coming = poses;
    this.layer("coming", (group) => {
      if (!poses.length) return;
      addTrack(group, poses, this.colours.coming);
      const step = Math.max(1, Math.floor((poses.length - 1) / 4));
      for (let i = 0; i < poses.length; i += step) {
        const last = i + step >= poses.length;
        this.addFrustum(group, poses[i], intrinsics[i], this.colours.coming, last ? this.size : 0.6 * this.size);
      }
    });
  }

  setKeys(keys) {
    this.layer("keys", (group) => {
      for (const { pose, lens } of keys) this.addFrustum(group, pose, lens, this.colours.key, this.size);
    });
  }

  setFrame(pose, lens) {
    this.layer("frame", (group) => {
      if (pose) this.addFrustum(group, pose, lens, this.colours.frame, 1.15 * this.size);
    });
  }

  addFrustum(group, pose, lens, colour, size, url) {
    const c = corners(lens, size);
    const o = new Vector3();
    const up = c[0].clone().lerp(c[1], 0.5).addScaledVector(new Vector3(0, -1, 0), 0.12 * size);
    const pairs = [o, c[0], o, c[1], o, c[2], o, c[3], c[0], c[1], c[1], c[2], c[2], c[3], c[3], c[0], c[0], up, up, c[1]];
    const lines = segments(pairs, colour);
    lines.applyMatrix4(toMatrix(pose));
    group.add(lines);
    if (!url) return;
    const plane = new BufferGeometry().setFromPoints(c);
    plane.setIndex([0, 3, 2, 0, 2, 1]);
    plane.setAttribute("uv", new BufferAttribute(new Float32Array([0, 1, 1, 1, 1, 0, 0, 0]), 2));
    const material = new MeshBasicMaterial({ side: DoubleSide, transparent: true, opacity: 0.8 });
    if (!this.textures.has(url)) {
      const texture = this.loader.load(url, () => this.invalidate());
      texture.colorSpace = SRGBColorSpace;
      this.textures.set(url, texture);
    }
    material.map = this.textures.get(url);
    const mesh = new Mesh(plane, material);
    mesh.applyMatrix4(toMatrix(pose));
    group.add(mesh);
  }

  /** Shows the points of a PLY file; gives how many there are. */
  setPoints(buffer) {
    const geometry = buffer ? new PLYLoader().parse(buffer) : null;
    this.cloud = geometry ? middleOf(geometry.getAttribute("position")) : [];
    this.layer("points", (group) => {
      if (!geometry) return;
      const coloured = Boolean(geometry.getAttribute("color"));
      const material = new PointsMaterial({ size: POINTS * this.renderer.getPixelRatio(), sizeAttenuation: false, vertexColors: coloured });
      if (!coloured) material.color.set(this.colours.past);
      group.add(new Points(geometry.clone(), material));
    });
    return geometry ? geometry.getAttribute("position").count : 0;
  }

  /** The pose of the eye in the API's axes. */
  pose() {
    this.eye.updateMatrix();
    return toRows(FLIP.clone().multiply(this.eye.matrix).multiply(FLIP));
  }

  /** Looks from a pose through its lens: what a picture there would show, with a little around it. */
  goTo(pose, lens) {
    this.flown = true;
    this.lens = lens;
    this.zoom();
    const { position, turn } = parts(FLIP.clone().multiply(toMatrix(pose)).multiply(FLIP));
    this.eye.position.copy(position);
    this.eye.quaternion.copy(turn);
    this.invalidate();
  }

  zoom() {
    const [fx, fy] = this.lens ?? [];
    const half = fy ? 1.1 * Math.max(0.5 / fy, 0.5 / fx / this.eye.aspect) : Math.tan((WIDE * Math.PI) / 360);
    this.eye.fov = (2 * Math.atan(half) * 180) / Math.PI;
    this.eye.updateProjectionMatrix();
  }

  /** Looks at all of some poses, and the points, from behind and above. */
  overview(poses) {
    this.flown = false; // until somebody flies, the view may frame itself anew
    this.lens = null;
    this.zoom();
    const points = (poses.length ? poses : [toRows(FLIP.clone().multiply(FLIP))]).map(
      (p) => parts(FLIP.clone().multiply(toMatrix(p))).position,
    ).concat(this.layers.points?.visible ? this.cloud.map((p) => p.clone().applyMatrix4(FLIP)) : []);
    const middle = points.reduce((a, b) => a.clone().add(b), new Vector3()).divideScalar(points.length);
    const radius = Math.max(0.6, ...points.map((p) => p.distanceTo(middle)));
    this.eye.position.copy(middle).add(new Vector3(0.9, 0.9, 1.5).multiplyScalar(1.2 * radius));
    this.eye.lookAt(middle.clone().add(new Vector3(0, 0, -0.15 * radius)));
    this.invalidate();
  }

  /** Moves the eye by metres (right, up, forward) and turns it by radians (to the left, up). */
  fly(right, up, forward, left = 0, tilt = 0) {
    this.flown = true;
    this.eye.rotation.y += left;
    this.eye.rotation.x = Math.min(1.5, Math.max(-1.5, this.eye.rotation.x + tilt));
    this.eye.rotation.z = 0;
    this.eye.translateX(right);
    this.eye.translateZ(-forward);
    this.eye.position.y += up;
    this.invalidate();
  }
}

/** Lines a metre apart, about where the floor is under a camera held at breast height. Each is cut into metres:
 * software GL leaves out a line of which one end is behind the eye. */
function floor(colour) {
  const [half, points] = [12, []];
  for (let a = -half; a <= half; a++) {
    for (let b = -half; b < half; b++) {
      points.push(new Vector3(a, -1.2, b), new Vector3(a, -1.2, b + 1), new Vector3(b, -1.2, a), new Vector3(b + 1, -1.2, a));
    }
  }
  return new LineSegments(new BufferGeometry().setFromPoints(points), new LineBasicMaterial({ color: colour }));
}

function addTrack(group, poses, colour) {
  const points = poses.map((p) => parts(toMatrix(p)).position);
  if (points.length > 1) group.add(segments(points.slice(1).flatMap((p, i) => [points[i], p]), colour));
}

/** Lines between the first and the second of some points, the third and the fourth, and so on. */
function segments(points, colour) {
  const geometry = new LineSegmentsGeometry().setPositions(points.flatMap((p) => p.toArray()));
  return new LineSegments2(geometry, new LineMaterial({ color: colour, linewidth: LINES }));
}

/** Two corners of the box that holds all but the outermost tenth of some points on each side. */
function middleOf(positions) {
  const at = (share) => {
    const read = ["getX", "getY", "getZ"].map((get) => {
      const values = Float32Array.from({ length: positions.count }, (_, i) => positions[get](i)).sort();
      return values[Math.floor(share * (values.length - 1))];
    });
    return new Vector3(...read);
  };
  return positions.count ? [at(0.1), at(0.9)] : [];
}

function spread(poses) {
  const points = poses.map((p) => parts(toMatrix(p)).position);
  return points.length ? Math.max(...points.map((p) => p.distanceTo(points[0]))) : 1;
}
