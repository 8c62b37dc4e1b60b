// Cameras as the API has them: world_from_camera, rows of 4x4, x right, y down, z forward, metres.
import { Matrix4, Quaternion, Vector3 } from "three";

/** Turns between the axes of the API (y down, z forward) and those of WebGL (y up, z back): its own inverse. */
export const FLIP = new Matrix4().makeRotationX(Math.PI);

export const toMatrix = (rows) => new Matrix4().set(...rows.flat());

export function toRows(matrix) {
  const e = matrix.elements; // by columns
  return [0, 1, 2, 3].map((r) => [e[r], e[4 + r], e[8 + r], e[12 + r]].map((x) => Number(x.toFixed(7))));
}

export function parts(matrix) {
  const [position, turn, scale] = [new Vector3(), new Quaternion(), new Vector3()];
  matrix.decompose(position, turn, scale);
  return { position, turn };
}

/** Where a pose is, seen from another one, in words. */
export function whereabouts(pose, from) {
  const { position, turn } = parts(toMatrix(from).invert().multiply(toMatrix(pose)));
  const ahead = new Vector3(0, 0, 1).applyQuaternion(turn);
  const degrees = (radians) => (radians * 180) / Math.PI;
  const words = [
    [position.x, "right", "left", "m", 2], [-position.y, "up", "down", "m", 2], [position.z, "forward", "back", "m", 2],
    [degrees(Math.atan2(ahead.x, ahead.z)), "to the right", "to the left", "°", 0],
    [degrees(Math.asin(Math.max(-1, Math.min(1, -ahead.y)))), "upwards", "downwards", "°", 0],
  ].map(([value, plus, minus, unit, digits]) => {
    const size = Math.abs(value).toFixed(digits);
    return Number(size) ? `${size}${unit === "m" ? " m" : unit} ${value > 0 ? plus : minus}` : "";
  });
  return words.filter(Boolean).join(", ") || "where the path begins";
}

const made = (position, turn) => new Matrix4().compose(position, turn, new Vector3(1, 1, 1));

/** A path with its positions and its turns scaled about its first pose, then moved as a whole.
 * `right`, `up`, `forward` in metres and `turn` in degrees (to the right) are those of the first pose. */
export function adjusted(poses, { scale = 1, angles = 1, right = 0, up = 0, forward = 0, turn = 0 }) {
  const first = toMatrix(poses[0]);
  const back = first.clone().invert();
  const move = made(
    new Vector3(right, -up, forward),
    new Quaternion().setFromAxisAngle(new Vector3(0, 1, 0), (turn * Math.PI) / 180),
  );
  // Angles are scaled step by step: a full turn has no axis of its own from end to end.
  let heading = new Quaternion();
  let before = new Quaternion();
  return poses.map((rows) => {
    const here = parts(back.clone().multiply(toMatrix(rows)));
    const step = before.clone().invert().multiply(here.turn);
    heading = heading.clone().multiply(scaledTurn(step, angles)).normalize();
    before = here.turn.clone();
    return toRows(first.clone().multiply(move).multiply(made(here.position.multiplyScalar(scale), heading)));
  });
}

function scaledTurn(q, factor) {
  const w = q.w < 0 ? q.clone().set(-q.x, -q.y, -q.z, -q.w) : q.clone();
  const sine = Math.hypot(w.x, w.y, w.z);
  if (sine < 1e-9) return new Quaternion();
  const angle = 2 * Math.atan2(sine, w.w) * factor;
  return new Quaternion().setFromAxisAngle(new Vector3(w.x / sine, w.y / sine, w.z / sine), angle);
}

/** The four corners of a picture at a depth, and the eye, in camera axes; intrinsics [fx, fy, cx, cy] normalised. */
export function corners([fx, fy, cx, cy], depth) {
  return [
    [0, 0],
    [1, 0],
    [1, 1],
    [0, 1],
  ].map(([u, v]) => new Vector3(((u - cx) / fx) * depth, ((v - cy) / fy) * depth, depth));
}
