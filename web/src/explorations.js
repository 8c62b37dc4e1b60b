// Explorations: which one is open, what is done to its clips, and the list of all.
//
// An answer may come after another exploration was opened. So openings are numbered, the last one wins, and whatever
// else waits for the server asks afterwards whether the exploration that it was about is still open.
import * as api from "./api.js";
import { $, ask } from "./dom.js";
import { active, drawOthers } from "./jobs.js";
import { goTo, guarded, news, on, problem } from "./telling.js";

export class Explorations {
  /** `onDraw()` shows what is open. `onMoved({other, begun})` is called after the next clip goes on from elsewhere: in
   * `other` exploration, or in one whose first clip was asked for just now (`begun`); it gives a promise. */
  constructor({ onDraw, onMoved }) {
    Object.assign(this, { onDraw, onMoved });
    this.open = null; // the exploration; none is open while a new one is set up
    this.selected = null; // the clip that is looked at, by its id
    this.jobs = null; // of the exploration that is open; set once there are any
    this.opening = 0;
    this.asking = null; // the clip that is about to be refined
    on("branch", "click", () => this.branch());
    on("undo", "click", () => this.undo());
    on("delete-clip", "click", () => this.deleteClip());
    on("make-scene", "click", () => this.makeScene());
    on("refine", "click", () => this.refine());
    on("delete-exploration", "click", () => this.deleteExploration());
    on("explorations", "change", async () => {
      await this.show($("explorations").value);
      await this.listOthers();
    });
    on("new", "click", async () => {
      const there = await this.show("");
      await this.list();
      if (there) goTo("form-title");
    });
  }

  get clips() {
    return this.open?.clips ?? [];
  }

  /** The clip that the next one goes on from. */
  get current() {
    return this.clips.find((c) => c.id === this.open.current) ?? null;
  }

  isOpen(id) {
    return this.open?.id === id;
  }

  /** Opens an exploration, "" for a new one; false if another one was asked for before the answer came. */
  async show(id) {
    const opening = ++this.opening;
    if (id) {
      let found;
      try {
        found = await api.exploration(id);
      } catch (error) {
        if (opening !== this.opening) return false; // nobody wants it any more
        throw error;
      }
      if (opening !== this.opening) return false;
      history.replaceState(null, "", `#${id}`);
      this.take(found);
      $("explorations").value = id;
      return true;
    }
    history.replaceState(null, "", location.pathname);
    Object.assign(this, { open: null, selected: null });
    this.jobs.set([]);
    this.onDraw();
    await this.onMoved({ other: true, begun: false });
    return opening === this.opening;
  }

  /** Opens one that was made by `start`, asked for when `opening` was the last opening; false if one was opened since. */
  begin({ exploration, job }, opening) {
    if (opening !== this.opening) return false;
    this.opening += 1;
    history.replaceState(null, "", `#${exploration.id}`);
    this.take(exploration, { begun: true });
    if (!this.jobs.jobs.has(job.id)) this.jobs.add(job);
    return true;
  }

  /** Shows an exploration as it was read. Which clip is gone on from is the page's own: another visitor, whose clips come
   * and whose branches move what the server takes for the current one, takes nobody along. `here` is the clip to go on
   * from, `selected` the one to look at, `begun` whether its first clip was asked for just now. */
  take(exploration, { here, selected = here, begun = false } = {}) {
    const before = this.open;
    const other = before?.id !== exploration.id;
    const there = (id) => exploration.clips.some((c) => c.id === id);
    exploration.current = [here, other ? null : before.current, exploration.current].find(there) ?? null;
    const moved = other || before.current !== exploration.current;
    this.open = exploration;
    this.selected = [selected, this.selected, exploration.current].find(there) ?? null;
    this.jobs.set(exploration.jobs);
    this.onDraw();
    if (moved) this.onMoved({ other, begun });
  }

  /** Reads anew what is open; null, and no error, if another one is open by the time that the answer comes. */
  async read() {
    const { id } = this.open;
    try {
      const fresh = await api.exploration(id);
      return this.isOpen(id) ? fresh : null;
    } catch (error) {
      if (this.isOpen(id)) throw error;
      return null;
    }
  }

  async refresh() {
    const fresh = this.open && (await this.read());
    if (fresh) this.take(fresh);
  }

  /** A job has ended: its clip, if it is this visitor's next one, is gone on from. */
  async ended(job) {
    if (this.isOpen(job.exploration)) {
      const before = new Set(this.jobs.jobs.keys());
      const fresh = await this.read();
      if (fresh) {
        // What was cancelled or failed stays listed until it is put away; what was asked for meanwhile is listed too.
        const known = new Set(fresh.jobs.map((j) => j.id));
        const kept = [...this.jobs.jobs.values()].filter((j) => !active(j) || !before.has(j.id));
        fresh.jobs.push(...kept.filter((j) => !known.has(j.id)));
        const goesOn = job.mine && job.state === "done" && job.kind === "extend" && this.follows(job);
        this.take(fresh, goesOn ? { here: job.clip } : {});
      }
    }
    await this.list();
  }

  /** Nothing is heard of the jobs any more: reads what became of them; whether that is known now. */
  async lost() {
    if (!this.open) return true;
    try {
      const waited = [...this.jobs.jobs.values()].filter((job) => job.mine && active(job) && job.kind === "extend");
      const fresh = await this.read();
      if (!fresh) return true;
      // One that was made while nobody was listening.
      const known = new Set(this.clips.map((c) => c.id));
      const made = fresh.clips.find((c) => !known.has(c.id) && waited.some((job) => job.parent === c.parent && this.follows(job)));
      this.take(fresh, { here: made?.id });
      problem(null);
      return true;
    } catch (error) {
      problem(error);
      return error.status === 404;
    }
  }

  /** Whether the clip of a job is the next one, or the one that is gone on from, made anew. */
  follows(job) {
    return this.open.current !== null && [job.parent, job.refines].includes(this.open.current);
  }

  /** Lists a job that was asked for in an exploration: with its own if it is open, else with those elsewhere. */
  async listJob(id, job) {
    if (this.isOpen(id)) this.jobs.add(job);
    else await this.listOthers();
  }

  async branch() {
    const [{ id }, here] = [this.open, this.selected];
    const fresh = await api.setCurrent(id, here);
    if (!this.isOpen(id)) return;
    this.take(fresh, { here });
    news(`The next clip goes on from clip ${Number(this.current.name)}.`);
    goTo("form-title");
  }

  async undo() {
    const [{ id }, { parent }] = [this.open, this.current];
    const fresh = await api.setCurrent(id, parent);
    if (!this.isOpen(id)) return;
    this.take(fresh, { here: parent });
    news(`Back at clip ${Number(this.current.name)}. The other one stays as a branch.`);
  }

  async deleteClip() {
    const { id } = this.open;
    const clip = this.clips.find((c) => c.id === this.selected);
    if (!(await ask(`Delete clip ${Number(clip.name)} for good?`))) return;
    const fresh = await api.deleteClip(clip.id);
    if (!this.isOpen(id)) return;
    const here = clip.id === this.open.current ? clip.parent : this.open.current;
    this.take(fresh, { here, selected: clip.parent });
  }

  async makeScene() {
    const { id } = this.open;
    await this.listJob(id, await api.makeScene(this.selected));
  }

  /** The same clip by the weights themselves: a branch beside it, or an exploration of its own if it is the first. */
  async refine() {
    const [{ id }, clip, opening] = [this.open, this.selected, this.opening];
    if (this.asking === clip || [...this.jobs.jobs.values()].some((job) => active(job) && job.refines === clip)) {
      throw new Error("This clip is being refined already.");
    }
    this.asking = clip; // a button that is disabled would lose the focus
    const job = await api.refine(clip).finally(() => (this.asking = null));
    if (job.exploration === id) {
      news("The clip is made anew: in the queue.");
      return this.listJob(id, job);
    }
    if (opening === this.opening) await this.show(job.exploration);
    news("The first clip is made anew in an exploration of its own: in the queue.");
    return this.list();
  }

  async deleteExploration() {
    const { id } = this.open; // the question is about this one, whatever is opened while it waits
    if (!(await ask("Delete this exploration with all its clips for good?"))) return;
    await api.deleteExploration(id);
    if (this.isOpen(id)) await this.show("");
    await this.list();
  }

  async list() {
    const found = await api.explorations();
    const size = (e) => (e.state === "ready" ? `${e.clips} ${e.clips === 1 ? "clip" : "clips"}` : e.state);
    const words = (e) => `${e.title || `Exploration ${e.id.slice(0, 6)}`} (${size(e)}${e.mine ? "" : ", not yours"})`;
    const options = [new Option(found.length ? "none: a new one" : "none yet", ""), ...found.map((e) => new Option(words(e), e.id))];
    const told = (list) => JSON.stringify(Array.from(list, (o) => [o.text, o.value]));
    // A list that somebody has open is left alone where nothing changed.
    if (told(options) !== told($("explorations").options)) $("explorations").replaceChildren(...options);
    $("explorations").value = this.open?.id ?? "";
    await this.listOthers();
  }

  async listOthers() {
    const there = guarded(async (id) => {
      await this.show(id);
      await this.list();
    });
    const count = drawOthers(await api.jobs(), this.open?.id, there);
    clearTimeout(this.again);
    // They are not listened to: a browser opens few connections to one host.
    if (count) this.again = setTimeout(() => this.list().catch(problem), 5000);
  }
}
