// What the page tells: what is wrong and where, what happened, what a job remarked upon.
import { Refused } from "./api.js";
import { $, el, say } from "./dom.js";

// Where something goes wrong, one place says so.
const FIELDS = {
  prompt: "prompt", seed: "seed", steps: "steps", worlds_seed: "worlds-seed", image: "picture", title: "title", scale: "scale",
  guidance: "guidance-text", "guidance.text": "guidance-text", "guidance.camera": "guidance-camera",
  "guidance.history": "guidance-history", path: "sentence", pose_file: "pose-file", "pose_file.range": "from-frame",
};
export function problem(error) {
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

export const guarded = (act) => async (event) => {
  problem(null);
  try {
    await act(event);
  } catch (error) {
    // A refusal or a mistake is told; a fault of ours (TypeError and others) is for the console too.
    if (!(error instanceof Refused) && error.constructor !== Error) console.error(error);
    problem(error);
  }
};
export const on = (id, name, act) => $(id).addEventListener(name, guarded(act));

/** Without what to do about it on the command line. */
const forPage = (remark) => remark.replace(/[.;:]? --[a-z].*$/s, "");

/** Lists remarks, where their text changed, so that a screen reader does not repeat them. */
export function remark(list, remarks) {
  const texts = remarks.map(forPage);
  if (JSON.stringify(texts) === JSON.stringify(Array.from(list.children, (item) => item.textContent))) return;
  list.replaceChildren(...texts.map((text) => el("li", {}, text)));
}

/** Says what happened; `look` is what can now be looked at, a clip by its id or the "view", `remarks` what was assumed. */
export function news(text, look, remarks = []) {
  say("message", text);
  remark($("told-remarks"), remarks);
  $("look").hidden = !look;
  $("look").dataset.at = look ?? "";
}

/** Brings a part of the page to who uses it, by eye and by keyboard. */
export function goTo(id) {
  $(id).focus({ preventScroll: true });
  $(id).scrollIntoView({ block: "start" });
}
