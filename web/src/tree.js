// The tree of clips: nested lists of buttons, in order of making.
import { $, el } from "./dom.js";

/** Draws the clips of an exploration; `onSelect` is given the id of the one that is chosen, `isQuick` says of which to mark. */
export function drawTree({ clips, current }, selected, onSelect, isQuick) {
  const children = Map.groupBy ? Map.groupBy(clips, (c) => c.parent) : grouped(clips);
  const active = document.activeElement?.dataset?.clip;
  const item = (clip) => {
    const where = clip.id === current ? [el("span", { className: "where" }, "Next clip goes on from here")] : [];
    const quick = isQuick(clip) ? [" ", el("span", { className: "quick" }, "quick look")] : [];
    const button = el(
      "button",
      { type: "button", "aria-pressed": String(clip.id === selected) },
      el("img", { src: clip.thumbnail, alt: "", width: 160, height: 96, loading: "lazy" }),
      el("span", {}, `${Number(clip.name)}. ${clip.said || "own path"}`, ...quick,
        el("small", {}, `${clip.frames} frames, seed ${clip.seed}`), ...where),
    );
    button.dataset.clip = clip.id;
    button.addEventListener("click", () => onSelect(clip.id));
    const further = children.get(clip.id) ?? [];
    // A line without branches stays flat, however long: only branches go in.
    return { own: el("li", {}, button), further };
  };
  const list = (first) => {
    const ul = el("ul");
    let level = first;
    while (level.length === 1) {
      const { own, further } = item(level[0]);
      ul.append(own);
      level = further;
    }
    for (const clip of level) {
      const { own, further } = item(clip);
      if (further.length) own.append(list(further));
      ul.append(el("li", {}, el("ul", {}, own)));
    }
    return ul;
  };
  $("tree").replaceChildren(...(clips.length ? [list(children.get(null) ?? [])] : []));
  if (active) $("tree").querySelector(`[data-clip="${CSS.escape(active)}"]`)?.focus();
}

function grouped(clips) {
  const groups = new Map();
  for (const clip of clips) groups.set(clip.parent, [...(groups.get(clip.parent) ?? []), clip]);
  return groups;
}

/** The clips from the first one to this one. */
export function lineOf(clips, id) {
  const by = new Map(clips.map((c) => [c.id, c]));
  const line = [];
  for (let clip = by.get(id); clip; clip = by.get(clip.parent)) line.unshift(clip);
  return line;
}
