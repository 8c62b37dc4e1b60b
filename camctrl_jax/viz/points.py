"""A cloud of points to turn with the mouse, inside a notebook: one string of HTML that loads nothing.

A software renderer on a canvas: some ten thousand points need no WebGL, and a notebook may show many.
"""

from __future__ import annotations

import base64
import html
import json

import numpy as np

from camctrl_jax.camera import Cameras
from camctrl_jax.errors import InvalidValue
from camctrl_jax.viz.trajectory import frusta_lines

_INSIDE = 1.0  # percent of the points at each end of each axis that are left out
_LEVELS = 65535


def points_html(
    points: np.ndarray,
    colours: np.ndarray,
    cameras: Cameras,
    *,
    most: int = 40_000,
    pyramids: int = 7,
    height: int = 480,
) -> str:
    """HTML for ``IPython.display.HTML``: drag to turn, wheel or + and - to come nearer, arrow keys.

    Args:
        points: f [P, 3], in the world of the cameras.
        colours: u8 [P, 3].
        cameras: some or all of those that saw the points; the first one's axes are those of the view.
        most: points that are kept, evenly taken of more; 12 bytes each.
        pyramids: cameras that are drawn, evenly taken of more.
        height: on the screen, in pixels.

    Raises:
        InvalidValue: no points, no camera, points that are not finite, or colours that are not theirs.
    """
    points, colours = np.asarray(points), np.asarray(colours)
    if not len(points) or not len(cameras):
        raise InvalidValue(f"nothing to show: {len(points)} points and {len(cameras)} cameras.")
    if colours.dtype != np.uint8 or points.shape != colours.shape or points.shape[1:] != (3,):
        raise InvalidValue(
            f"points {list(points.shape)} and colours {colours.dtype} {list(colours.shape)} do not belong "
            "together; expected [P, 3] and u8 [P, 3]."
        )
    if not np.isfinite(points).all():
        raise InvalidValue("some points are not finite; leave them out with their colours.")
    first_from_world = cameras.camera_from_world[0]
    seen = np.asarray(points, np.float64) @ first_from_world[:3, :3].T + first_from_world[:3, 3]
    low, high = np.percentile(seen, [_INSIDE, 100.0 - _INSIDE], axis=0)
    inside = np.flatnonzero(((seen >= low) & (seen <= high)).all(axis=1))
    if not len(inside):  # so few that each is an end
        inside, low, high = np.arange(len(seen)), seen.min(axis=0), seen.max(axis=0)
    kept = inside[np.unique(np.linspace(0, len(inside) - 1, min(most, len(inside))).astype(int))]
    span = np.maximum(high - low, 1e-9)
    placed = np.round((seen[kept] - low) / span * _LEVELS).astype("<u2")
    middle = np.median(seen[kept], axis=0)
    # The view begins close behind the first camera, from where the points look like its picture.
    scale = max(float(np.linalg.norm(middle)), 0.2 * float(span.max()))
    outlines = frusta_lines(cameras.relative_to(0), pyramids, 0.06 * scale)
    scene = {
        "count": len(kept),
        "low": low.tolist(),
        "step": (span / _LEVELS).tolist(),
        "middle": middle.tolist(),
        "scale": scale,
        "lines": [line.round(5).tolist() for line in outlines],
        "data": base64.b64encode(placed.tobytes() + colours[kept].astype(np.uint8).tobytes()).decode(),
    }
    unit = "m" if cameras.metric else "units"
    said = f"{len(points):,} points, {span[0]:.1f} x {span[1]:.1f} x {span[2]:.1f} {unit}"
    page = _PAGE.replace("SAID", said).replace("SCENE", json.dumps(scene))
    return (
        f'<div><iframe srcdoc="{html.escape(page)}" sandbox="allow-scripts" title="{said}" width="100%" '
        f'height="{height}" style="border: 0; max-width: 960px"></iframe></div>'
    )


_PAGE = """<!doctype html><meta charset="utf-8">
<style>
body { margin: 0; font: 12px sans-serif; color: #2b2f36; background: #fff; overflow: hidden }
canvas { width: 100vw; height: calc(100vh - 20px); display: block; cursor: grab; touch-action: none }
p { margin: 2px; text-align: center }
</style>
<canvas tabindex="0" role="img" aria-label="SAID"></canvas>
<p>SAID. Drag to turn; click, then wheel or + and - to come nearer; double click to begin again.</p>
<script>
const scene = SCENE;
const bytes = Uint8Array.from(atob(scene.data), (c) => c.charCodeAt(0));
const placed = new Uint16Array(bytes.buffer, 0, 3 * scene.count);
const colours = bytes.subarray(6 * scene.count);
const points = new Float32Array(3 * scene.count);
for (let i = 0; i < points.length; i++) {
  points[i] = scene.low[i % 3] + placed[i] * scene.step[i % 3] - scene.middle[i % 3];
}
const canvas = document.querySelector("canvas"), context = canvas.getContext("2d");
let turn, tilt, away, waiting = false;

function start() { turn = -0.25; tilt = 0.2; away = 1.6 * scene.scale; draw(); }

// x right, y down, z ahead, for the screen as for the cameras
function rotation() {
  const c = Math.cos(turn), s = Math.sin(turn), d = Math.cos(tilt), t = Math.sin(tilt);
  return [c, 0, s, s * t, d, -c * t, -s * d, t, c * d];
}

function paint() {
  waiting = false;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  if (!width || !height) return;
  canvas.width = width; canvas.height = height;
  const picture = context.createImageData(width, height), depth = new Float32Array(width * height).fill(1e30);
  const pixels = new Uint32Array(picture.data.buffer).fill(0xffffffff);
  const r = rotation(), focal = 1.1 * height, near = 0.02 * scene.scale;
  const size = 0.008 * scene.scale * focal;
  for (let i = 0; i < points.length; i += 3) {
    const x = points[i], y = points[i + 1], z = points[i + 2];
    const ahead = r[6] * x + r[7] * y + r[8] * z + away;
    if (ahead < near) continue;
    const side = Math.max(2, Math.min(6, Math.round(size / ahead)));
    const left = Math.round(width / 2 + focal * (r[0] * x + r[1] * y + r[2] * z) / ahead - side / 2);
    const top = Math.round(height / 2 + focal * (r[3] * x + r[4] * y + r[5] * z) / ahead - side / 2);
    if (left < 0 || top < 0 || left + side > width || top + side > height) continue;
    const colour = 0xff000000 | colours[i + 2] << 16 | colours[i + 1] << 8 | colours[i];
    for (let row = top; row < top + side; row++) {
      for (let at = row * width + left; at < row * width + left + side; at++) {
        if (ahead < depth[at]) { depth[at] = ahead; pixels[at] = colour; }
      }
    }
  }
  context.putImageData(picture, 0, 0);
  context.strokeStyle = "#d7263d";
  for (const line of scene.lines) {
    context.beginPath();
    let begun = false;
    for (const point of line) {
      const [x, y, z] = point.map((value, axis) => value - scene.middle[axis]);
      const ahead = r[6] * x + r[7] * y + r[8] * z + away;
      if (ahead < near) { begun = false; continue; }
      const left = width / 2 + focal * (r[0] * x + r[1] * y + r[2] * z) / ahead;
      const top = height / 2 + focal * (r[3] * x + r[4] * y + r[5] * z) / ahead;
      if (begun) context.lineTo(left, top); else context.moveTo(left, top);
      begun = true;
    }
    context.stroke();
  }
}

function draw() { if (!waiting) { waiting = true; requestAnimationFrame(paint); } }
function tilted(by) { tilt = Math.max(-1.57, Math.min(1.57, tilt + by)); }
function nearer(by) { away = Math.max(0.1 * scene.scale, Math.min(10 * scene.scale, away * by)); }

canvas.onpointerdown = (event) => { canvas.setPointerCapture(event.pointerId); canvas.focus(); };
canvas.onpointermove = (event) => {
  if (!event.buttons) return;
  turn -= event.movementX / 200; tilted(event.movementY / 200); draw();
};
canvas.addEventListener("wheel", (event) => {
  if (document.activeElement !== canvas) return;  // the notebook scrolls
  event.preventDefault(); nearer(Math.exp(event.deltaY / 600)); draw();
}, { passive: false });
canvas.ondblclick = start;
const keys = {
  ArrowLeft: () => { turn += 0.1; }, ArrowRight: () => { turn -= 0.1; },
  ArrowUp: () => tilted(0.1), ArrowDown: () => tilted(-0.1),
  "+": () => nearer(0.9), "-": () => nearer(1 / 0.9),
};
canvas.onkeydown = (event) => {
  if (keys[event.key]) { event.preventDefault(); keys[event.key](); draw(); }
};
window.onresize = draw;
start();
</script>
"""
