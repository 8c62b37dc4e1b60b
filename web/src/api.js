// The API of camctrl_jax.explore, as explore/openapi.json describes it.

function visitor() {
  const fresh = () => Array.from(crypto.getRandomValues(new Uint8Array(12)), (b) => b.toString(16).padStart(2, "0")).join("");
  try {
    const kept = localStorage.getItem("visitor") || fresh();
    localStorage.setItem("visitor", kept);
    return kept;
  } catch {
    return fresh(); // storage is switched off: a visitor for as long as the page is open
  }
}

const VISITOR = visitor();

export class Refused extends Error {
  constructor({ type, message, param }, status) {
    super(message);
    Object.assign(this, { type, param, status });
  }
}

async function call(method, url, body) {
  const headers = { "X-Visitor": VISITOR };
  if (body && !(body instanceof FormData)) {
    headers["Content-Type"] = "application/json";
    body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(url, { method, headers, body });
  } catch {
    throw new Refused({ type: "unreachable", message: "The server does not answer. What it was making goes on; this page tries again." }, 0);
  }
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => null);
  throw new Refused(told?.error ?? { type: "http", message: `The server answered ${answer.status}.` }, answer.status);
}

const json = async (...request) => (await call(...request)).json();

export const model = () => json("GET", "/v1/model");
export const presets = () => json("GET", "/v1/presets");
export const explorations = async () => (await json("GET", "/v1/explorations")).explorations;
export const exploration = (id) => json("GET", `/v1/explorations/${id}`);
export const previewPath = (request) => json("POST", "/v1/paths", request);
export const extend = (id, request) => json("POST", `/v1/explorations/${id}/clips`, request);
export const setCurrent = (id, clip) => json("PUT", `/v1/explorations/${id}/current`, { clip });
export const deleteClip = (clip) => json("DELETE", `/v1/clips/${clip}`);
export const deleteExploration = (id) => call("DELETE", `/v1/explorations/${id}`);
export const jobs = async () => (await json("GET", "/v1/jobs")).jobs;
export const cancel = (job) => json("POST", `/v1/jobs/${job}/cancel`);
export const makeScene = (clip) => json("POST", `/v1/clips/${clip}/scene`);
export const refine = (clip) => json("POST", `/v1/clips/${clip}/refine`);
export const points = async (clip) => (await call("GET", `/v1/clips/${clip}/scene?format=ply`)).arrayBuffer();

export function start(request, image) {
  if (!image) return json("POST", "/v1/explorations", request);
  const form = new FormData();
  form.append("request", JSON.stringify(request));
  form.append("image", image, image.name);
  return json("POST", "/v1/explorations", form);
}

/** Calls `onJob` with every later state of a job; gives a function that stops listening. */
export function events(job, onJob, onLost) {
  const source = new EventSource(`/v1/jobs/${job}/events?visitor=${VISITOR}`);
  source.addEventListener("job", (event) => onJob(JSON.parse(event.data)));
  // The browser tries again by itself, with the last id; only a refusal closes the source.
  source.addEventListener("error", () => source.readyState === EventSource.CLOSED && onLost());
  return () => source.close();
}
