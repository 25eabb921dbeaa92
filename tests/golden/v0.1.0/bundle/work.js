/** The prompt, its settings and the text that streams out. */

import { byId } from "./dom.js";
import { inSentence } from "./words.js";

const FIELDS = ["prompt", "temperature", "top-k", "top-p", "seed", "most"];

/** The form; it asks, the worker answers. */
export class Work {
  /** @param {(request: object) => void} ask Sends a request to the worker. */
  constructor(ask) {
    this.ask = ask;
    byId("form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#start();
    });
    byId("stop").addEventListener("click", () => ask({ ask: "stop" }));
    byId("prompt").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("form").requestSubmit();
    });
  }

  /** @param {string} note Why nothing can be typed, or what may be done. */
  enable(on, note) {
    for (const id of FIELDS) byId(id).disabled = !on;
    byId("generate").disabled = !on;
    byId("stop").disabled = true;
    byId("prompt-note").textContent = note;
  }

  token(text) {
    byId("output").append(text);
  }

  /** @param {{tokens: number, tokens_per_second: number, ended: string}} summary What was written. */
  done({ tokens, tokens_per_second: pace, ended }) {
    this.busy(false);
    const count = `${tokens} ${tokens === 1 ? "token" : "tokens"}`;
    byId("pace").textContent = `${count}, ${Math.round(pace).toLocaleString("en")} tokens a second; ${ended}.`;
  }

  refused(reason) {
    this.busy(false);
    byId("pace").textContent = `${inSentence(reason)} (${reason})`;
  }

  #start() {
    if (byId("generate").disabled) return;
    this.busy(true);
    byId("output").replaceChildren();
    byId("pace").textContent = "Writing…";
    const number = (id) => Number(byId(id).value);
    this.ask({
      ask: "generate",
      prompt: byId("prompt").value,
      sampling: {
        temperature: number("temperature"),
        top_k: number("top-k"),
        top_p: number("top-p"),
        seed: byId("seed").value,
      },
      most: number("most"),
    });
  }

  /** While the model writes, it can only be stopped. */
  busy(on) {
    byId("generate").disabled = on;
    byId("stop").disabled = !on;
    byId("output").setAttribute("aria-busy", String(on));
  }
}
