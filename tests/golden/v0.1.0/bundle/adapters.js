/** Switches for the stack: a prefix of the planned order lies on the model, never another order. */

import { byId, digest, el, facts, inBytes } from "./dom.js";
import { inSentence } from "./words.js";

/** The adapters of the bundle. */
export class Adapters {
  /** @param {(count: number) => void} change Called with how many of them shall lie on the model. */
  constructor(change) {
    this.change = change;
    this.switches = [];
  }

  /**
   * @param {object[]} manifests Verified manifests, in the order of the stack.
   * @param {string[]} names What people call them.
   */
  show(manifests, names) {
    this.switches = manifests.map((manifest, index) => {
      const box = el("input", { type: "checkbox", role: "switch", id: `adapter-${index + 1}`, disabled: true });
      box.addEventListener("change", () => this.change(box.checked ? index + 1 : index));
      return box;
    });
    byId("adapters").replaceChildren(
      ...manifests.map((manifest, index) => rowOf(manifest, names[index], this.switches[index])),
    );
    byId("stack").hidden = manifests.length === 0;
  }

  /** The first `count` lie on the model. */
  set(count) {
    for (const [index, box] of this.switches.entries()) box.checked = index < count;
    byId("stack-note").textContent = "";
  }

  refused(reason) {
    byId("stack-note").textContent = `${inSentence(reason)} (${reason})`;
  }

  enable(on) {
    for (const box of this.switches) box.disabled = !on;
  }
}

function rowOf(manifest, title, box) {
  const tensors = `${manifest.entries} ${manifest.entries === 1 ? "tensor" : "tensors"}`;
  const changes = [manifest.package, tensors, inBytes(manifest.artifact.size), manifest.licence].join(", ");
  const name = el(
    "label",
    { for: box.id },
    box,
    el("span", { class: "track", "aria-hidden": "true" }),
    el("span", {}, title, el("span", { class: "how" }, changes)),
  );
  const more = el(
    "details",
    {},
    el("summary", {}, "Details"),
    facts([
      ["Does not", manifest.unsupported.join("; ")],
      ["Trade-offs", manifest.trade_offs.join("; ")],
      ["Package", digest(manifest.artifact.sha256)],
      ["State with it", digest(manifest.state_sha256)],
    ]),
  );
  return el("li", {}, name, more);
}
