/** The page: starts the worker, shows what it tells, and asks it to write. */

import { Adapters } from "./adapters.js";
import { canonicalText } from "./canonical.js";
import { byId, digest, el, facts, inWords, wholeDigest } from "./dom.js";
import { Evidence } from "./filelist.js";
import { showModel } from "./model.js";
import { Steps, reasonOf } from "./steps.js";
import { STEPS, inSentence } from "./words.js";
import { Work } from "./work.js";

/** One bundle on one page. */
export class Page {
  /**
   * @param {() => Worker} makeWorker Makes the worker that everything about bytes happens in.
   * @param {{plan: {sha256: string, size: number} | undefined}} given Digest and size of the plan, and where files are.
   */
  constructor(makeWorker, given) {
    this.makeWorker = makeWorker;
    this.given = given;
    this.title = byId("title").textContent;
    this.work = new Work((request) => this.#ask(request));
    this.adapters = new Adapters((count) => this.#ask({ ask: "stack", count }));
    byId("export").addEventListener("click", () => this.#export());
    byId("unload").addEventListener("click", () => (this.worker ? this.unload() : this.load()));
    byId("plan-digest").textContent = given.plan?.sha256 || "none";
  }

  /** Verify everything from the plan on, in a new worker. */
  load() {
    this.steps = new Steps();
    this.evidence = new Evidence();
    this.#state("verifying", "Verifying…");
    this.#forget();
    this.worker = this.makeWorker();
    this.worker.addEventListener("message", ({ data }) => this[data.tell](data));
    this.worker.addEventListener("error", (event) => {
      event.preventDefault();
      this.refused({
        step: "plan",
        reason: "page.failed",
        detail: event.message ?? "the worker could not be started",
        module: null,
      });
    });
    this.worker.postMessage({ ask: "verify", ...this.given });
    byId("unload").textContent = "Unload the model";
    byId("unload").disabled = false;
  }

  /** Drop the worker, and with it the model, the engine and all of their memory. */
  unload() {
    this.worker.terminate();
    this.worker = null;
    this.#answering(false, "The model was unloaded.");
    this.work.busy(false);
    byId("export").disabled = true;
    byId("unload").textContent = "Verify and load again";
    this.#state("unloaded", "Unloaded. The model and its memory are gone.");
  }

  checking({ step }) {
    this.steps.checking(step);
    const [number, title] = [STEPS.findIndex(([name]) => name === step) + 1, STEPS.find(([name]) => name === step)[1]];
    byId("verdict").textContent = `Verifying, step ${number} of ${STEPS.length}: ${title}`;
  }

  progress({ step, loaded, total }) {
    this.steps.progress(step, loaded, total);
  }

  verified({ step, note }) {
    this.steps.verified(step, note);
    if (step === "evidence") this.evidence.meant();
  }

  planned({ plan }) {
    this.evidence.show(plan);
  }

  file({ module }) {
    this.evidence.verified(module);
  }

  described({ manifest, adapters, names }) {
    showModel(manifest);
    this.adapters.show(adapters, names);
  }

  ready({ count }) {
    this.#answering(true, "The model continues this text; Ctrl+Enter generates.");
    this.adapters.set(count);
    this.#state("verified", "Verified. What runs here is what the lab judged.");
  }

  refused(refusal) {
    this.steps.refused(refusal.step, refusal);
    this.evidence.refused(refusal.module);
    this.#answering(false, "Disabled: the bundle was refused, so there is nothing that may answer.");
    const title = STEPS.find(([name]) => name === refusal.step)[1];
    byId("explained").replaceChildren(el("p", {}, inSentence(refusal.reason)), el("p", {}, ...reasonOf(refusal)));
    this.#state("refused", `Refused at ${title}. Nothing runs.`);
    this.worker?.terminate();
    this.worker = null;
    byId("unload").textContent = "Verify again";
  }

  token({ text }) {
    this.work.token(text);
  }

  written(summary) {
    this.work.done(summary);
    this.adapters.enable(true);
  }

  stacked({ count }) {
    this.adapters.set(count);
    this.#answering(true, "The model continues this text; Ctrl+Enter generates.");
  }

  /** The engine would not do what was asked; it stands as it stood. */
  unable({ asked, reason, count }) {
    this.adapters.set(count);
    if (asked === "stack") this.adapters.refused(reason);
    else this.work.refused(reason);
    this.#answering(true, "The model continues this text; Ctrl+Enter generates.");
  }

  diagnosed({ diagnostics }) {
    this.diagnostics = canonicalText(diagnostics);
    byId("diagnostics").textContent = JSON.stringify(diagnostics, null, 2);
    byId("diagnostics").hidden = false;
    byId("export").disabled = false;
    byId("state").replaceChildren(
      facts([
        ["Assembly state", wholeDigest(diagnostics.state_sha256)],
        ["Logits", [digest(diagnostics.logits.sha256), ` of ${inWords(diagnostics.logits.positions)} positions`]],
        ["Adapters", diagnostics.applied.length ? `${diagnostics.applied.length} applied` : "none applied"],
        ["Quantisation", diagnostics.quantisation],
        ["Keys and values", `${inWords(diagnostics.kv_length)} positions`],
        ["Pace", diagnostics.tokens ? `${inWords(Math.round(diagnostics.tokens_per_second))} tokens a second` : null],
        ["Engine", digest(diagnostics.engine)],
      ]),
    );
  }

  #ask(request) {
    if (request.ask !== "stop") this.adapters.enable(false);
    if (request.ask === "stack") this.#answering(false, "The adapters are being changed.");
    this.worker.postMessage(request);
  }

  /** Nothing that an earlier verification vouched for stays in sight of the next. */
  #forget() {
    byId("title").textContent = this.title;
    for (const id of ["explained", "state", "output", "pace"]) byId(id).replaceChildren();
    for (const id of ["model", "stack", "diagnostics"]) byId(id).hidden = true;
  }

  #answering(on, note) {
    this.work.enable(on, note);
    this.adapters.enable(on);
  }

  #state(state, verdict) {
    document.documentElement.dataset.state = state;
    byId("verdict").textContent = verdict;
  }

  #export() {
    const file = new Blob([this.diagnostics], { type: "application/json" });
    const link = el("a", { href: URL.createObjectURL(file), download: "diagnostics.json" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }
}
