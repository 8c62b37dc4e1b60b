// Flying: WASD and arrows, E and Q up and down, the mouse, one finger or two, and the buttons beside the view.
const KEYS = {
  KeyW: [0, 0, 1, 0, 0], KeyS: [0, 0, -1, 0, 0], KeyA: [-1, 0, 0, 0, 0], KeyD: [1, 0, 0, 0, 0],
  KeyE: [0, 1, 0, 0, 0], KeyQ: [0, -1, 0, 0, 0],
  ArrowLeft: [0, 0, 0, 1, 0], ArrowRight: [0, 0, 0, -1, 0], ArrowUp: [0, 0, 0, 0, 1], ArrowDown: [0, 0, 0, 0, -1],
};
const METRES = 1.2; // a second
const RADIANS = 0.9;
const LOOK = 0.004; // radians a pixel that is dragged
const SHIFT = 0.005; // metres a pixel
const PINCH = 2; // metres forward when the fingers are e times as far apart

export function flyWith(view, pad) {
  const { canvas } = view;
  const held = new Set();
  const touching = new Map(); // where each finger, or the mouse, is
  let running = 0;

  // A tap moves by one step at once, however slowly the view is drawn; a key held down moves by time.
  const step = (code, seconds) => {
    const [right, up, forward, left, tilt] = KEYS[code].map((x) => x * seconds);
    view.fly(METRES * right, METRES * up, METRES * forward, RADIANS * left, RADIANS * tilt);
  };
  const loop = (before) => (now) => {
    if (!held.size) return void (running = 0);
    const seconds = Math.min(0.1, (now - before) / 1000);
    for (const code of held) step(code, seconds);
    running = requestAnimationFrame(loop(now));
  };
  const press = (code) => {
    if (held.has(code)) return;
    step(code, 0.08);
    held.add(code);
    if (!running) running = requestAnimationFrame(loop(performance.now()));
  };

  canvas.addEventListener("keydown", (event) => {
    if (!(event.code in KEYS) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    press(event.code);
  });
  canvas.addEventListener("keyup", (event) => held.delete(event.code));
  canvas.addEventListener("blur", () => held.clear());
  addEventListener("blur", () => held.clear());

  canvas.addEventListener("pointerdown", (event) => {
    canvas.focus({ preventScroll: true });
    canvas.setPointerCapture(event.pointerId);
    touching.set(event.pointerId, [event.clientX, event.clientY]);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!touching.has(event.pointerId)) return;
    const before = grip(touching);
    touching.set(event.pointerId, [event.clientX, event.clientY]);
    const after = grip(touching);
    const [x, y] = [after.x - before.x, after.y - before.y];
    // What is touched stays under the finger: the camera goes the other way.
    if (touching.size === 1 && !event.shiftKey) view.fly(0, 0, 0, LOOK * x, LOOK * y);
    else view.fly(-SHIFT * x, SHIFT * y, PINCH * Math.log(after.apart / before.apart));
  });
  for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) {
    canvas.addEventListener(end, (event) => touching.delete(event.pointerId));
  }
  canvas.addEventListener("wheel", (event) => {
    if (document.activeElement !== canvas) return; // else the page could not be scrolled past the view
    event.preventDefault();
    view.fly(0, 0, -event.deltaY * 0.002);
  }, { passive: false });

  for (const button of pad.querySelectorAll("[data-fly]")) {
    const code = button.dataset.fly;
    const release = () => held.delete(code);
    button.addEventListener("pointerdown", () => press(code));
    for (const end of ["pointerup", "pointerleave", "pointercancel"]) button.addEventListener(end, release);
    button.addEventListener("click", (event) => event.detail === 0 && step(code, 0.2)); // by keyboard
  }
}

/** The middle of the first two of what touches, and how far they are apart, in pixels. */
function grip(touching) {
  const [[ax, ay], [bx, by] = [ax, ay]] = touching.values();
  return { x: (ax + bx) / 2, y: (ay + by) / 2, apart: Math.max(1, Math.hypot(ax - bx, ay - by)) };
}
