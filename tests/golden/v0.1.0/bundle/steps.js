/** The list of steps: what is verified, what is being verified, and where it stopped. */

import { byId, el, svg } from "./dom.js";
import { STEPS, inSentence } from "./words.js";

const SIGNS = {
  pending: "",
  checking: "",
  verified: "M5 10.5 8.5 14 15 6.5",
  refused: "M6 6 14 14 M14 6 6 14",
  "not reached": "M6 10H14",
};

/** Every step in its state. */
export class Steps {
  constructor() {
    this.rows = new Map(STEPS.map(([step, title, meaning]) => [step, rowOf(step, title, meaning)]));
    byId("steps").replaceChildren(...[...this.rows.values()].map((row) => row.item));
    for (const step of this.rows.keys()) this.#set(step, "pending");
  }

  checking(step) {
    this.#set(step, "checking");
  }

  /** How far a long fetch has come. */
  progress(step, loaded, total) {
    const { bar } = this.rows.get(step);
    bar.hidden = loaded >= total;
    bar.max = total;
    bar.value = loaded;
  }

  /** @param {string} note What was found, in a few words. */
  verified(step, note) {
    const row = this.rows.get(step);
    row.bar.hidden = true;
    row.note.textContent = note;
    this.#set(step, "verified");
  }

  refused(step, { reason, detail, module }) {
    const row = this.rows.get(step);
    row.bar.hidden = true;
    row.text.textContent = inSentence(reason);
    row.text.after(el("p", { class: "refusal" }, ...reasonOf({ reason, detail, module })));
    row.item.dataset.reason = reason;
    this.#set(step, "refused");
    const order = [...this.rows.keys()];
    for (const later of order.slice(order.indexOf(step) + 1)) this.#set(later, "not reached");
  }

  #set(step, state) {
    const { item, state: shown, sign } = this.rows.get(step);
    item.dataset.state = state;
    shown.textContent = state;
    sign.setAttribute("d", SIGNS[state]);
  }
}

/** A refusal in its own words: the stable reason, the file, what was found. */
export function reasonOf({ reason, detail, module }) {
  return [el("code", {}, reason), ` ${module ? `${module}: ` : ""}${detail}.`];
}

function rowOf(step, title, meaning) {
  const sign = svg("path", { class: "sign" });
  const mark = svg(
    "svg",
    { viewBox: "0 0 20 20", class: "mark", "aria-hidden": "true" },
    svg("circle", { cx: 10, cy: 10, r: 9 }),
    sign,
  );
  const state = el("span", { class: "state" });
  const note = el("span", { class: "found" });
  const text = el("p", { class: "meaning" }, meaning);
  const bar = el("progress", { "aria-label": `${title}: bytes fetched`, hidden: true });
  const head = el("p", { class: "head" }, el("strong", {}, title), " ", state, " ", note);
  return { item: el("li", { "data-step": step }, mark, el("div", {}, head, text, bar)), state, note, text, bar, sign };
}
