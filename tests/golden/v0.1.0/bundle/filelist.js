/** "Assembly Evidence": every planned file with its checksum and whether it was verified. */

import { byId, el, inBytes } from "./dom.js";

const TEXTS = new Set(["sidecar", "evidence"]);

/** The list of files; loaded is said only once the checksum and the meaning of every file of text were verified. */
export class Evidence {
  constructor() {
    byId("file-list").replaceChildren();
    byId("files-title").textContent = "Files";
    this.#say("waiting");
  }

  /** @param {{modules: object[]}} plan The verified plan. */
  show(plan) {
    this.rows = new Map(plan.modules.map((module) => [module.id, rowOf(module)]));
    this.waiting = new Set(plan.modules.filter((module) => TEXTS.has(module.class)).map((module) => module.id));
    byId("file-list").replaceChildren(...this.rows.values());
    const bytes = plan.modules.reduce((sum, module) => sum + module.size, 0);
    byId("files-title").textContent = `${plan.modules.length} files, ${inBytes(bytes)}`;
  }

  verified(id) {
    this.#set(id, "verified");
    this.waiting.delete(id);
  }

  /** The step of the evidence was passed. */
  meant() {
    this.loaded = this.waiting.size === 0;
    if (this.loaded) this.#say("loaded");
  }

  /** @param {string | null} id The file it stopped at, if it was one. */
  refused(id) {
    if (id && this.rows?.has(id)) {
      this.#set(id, "refused");
      byId("files").open = true;
      const list = byId("file-list");
      list.scrollTop = this.rows.get(id).offsetTop - list.offsetTop;
    }
    if (!this.loaded) this.#say("not loaded");
  }

  #set(id, state) {
    const row = this.rows.get(id);
    row.dataset.state = state;
    row.querySelector(".state").textContent = state;
  }

  #say(words) {
    byId("evidence-state").textContent = words;
    byId("evidence").dataset.state = words;
  }
}

function rowOf(module) {
  const [folder] = module.path.split(/(?<=\/)/);
  const place = folder === module.path ? folder : `${folder}${module.sha256.slice(0, 8)}…`;
  return el(
    "li",
    { "data-state": "pending", title: `${module.path}, SHA-256 ${module.sha256}` },
    el("strong", {}, module.id),
    el("span", { class: "state" }, "pending"),
    el("code", { class: "path" }, place),
    el("span", { class: "found" }, inBytes(module.size)),
  );
}
