export const $ = (id) => document.getElementById(id);

/** An element with properties, attributes (names with a dash) and children. */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-")) element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

export const number = (id) => ($(id).value.trim() === "" ? null : Number($(id).value));

/** Replaces what an element, or the one of an id, says only where it changed, so that a screen reader does not repeat it. */
export function say(where, text) {
  const element = typeof where === "string" ? $(where) : where;
  if (element.textContent !== text) element.textContent = text;
}

/** Acts a while after it was last asked to: {ask, forget}. */
export function after(milliseconds, act) {
  let timer = 0;
  const forget = () => clearTimeout(timer);
  const ask = () => {
    forget();
    timer = setTimeout(act, milliseconds);
  };
  return { ask, forget };
}

export function time(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

/** Asks before something is deleted; true if the answer is yes. */
export function ask(text) {
  say("ask-text", text);
  const dialog = $("ask");
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}
