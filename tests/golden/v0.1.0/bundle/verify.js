/**
 * The steps from the digest of a plan to a model that may answer, in their order; the first refusal ends them.
 *
 * No byte of the model is asked for before every text was verified, and none of an adapter before the model runs.
 */

import { readCanonical } from "./canonical.js";
import { Refusal, demand } from "./checks.js";
import { Engine, EngineRefused } from "./engine.js";
import { demandForm } from "./forms.js";
import { checkEvidence, kindsOf } from "./meaning.js";
import { PLAN_BYTES, checkPolicy } from "./plan.js";
import {
  checkAdapterManifests,
  checkFamily,
  checkModelManifest,
  checkReceipt,
  checkRegistry,
  moduleOf,
} from "./receipts.js";
import { readWhole, sha256 } from "./sources.js";
import { STEPS } from "./words.js";

const DIGEST = /^[0-9a-f]{64}$/;
// What a refused fetch is called where the plan's own files are not meant.
const FETCH_AS = { evidence: "evidence.file", adapters: "adapter.artifact" };

/**
 * Verify a bundle.
 *
 * @param {object} files Where its files are (`sources.js`).
 * @param {{sha256: string, size: number} | undefined} expected Digest and size of the plan that the page was made with.
 * @param {(message: object) => void} tell Called with everything that is found, as it is found.
 * @returns {Promise<Assembly | null>} What runs, or null if it was refused.
 */
export async function verify(files, expected, tell) {
  const assembly = new Assembly(files, expected, tell);
  for (const [step] of STEPS) {
    tell({ tell: "checking", step });
    try {
      tell({ tell: "verified", step, note: await DO[step](assembly) });
    } catch (error) {
      tell({ tell: "refused", step, ...refusalOf(step, error, assembly.current) });
      return null;
    }
  }
  return assembly;
}

function refusalOf(step, error, current) {
  if (error instanceof EngineRefused) {
    const reason = step === "adapters" ? "adapter.validation" : error.reason;
    return { reason, detail: `the engine refuses it: ${error.message}`, module: current, engine: error.reason };
  }
  if (!(error instanceof Refusal)) return { reason: "page.failed", detail: String(error), module: current };
  const reason = error.reason.startsWith("fetch.") ? (FETCH_AS[step] ?? error.reason) : error.reason;
  return { reason, detail: error.message, module: error.module, engine: error.cause?.reason };
}

/** The beginning of a digest, which is enough to tell it from another. */
const brief = (digest) => `${digest.slice(0, 12)}…`;

/** Refuse what a manifest states otherwise than the file has it. */
function demandFact(reason, field, found, stated, id) {
  demand(found === stated, reason, `${field} is ${found}; the manifest says ${stated}`, id);
}

/** What every step does; the state it finds and leaves is the assembly. */
const DO = {
  async plan(run) {
    demand(
      globalThis.crypto?.subtle,
      "page.insecure",
      "this page was opened neither over https nor from localhost nor from disk",
    );
    const named = DIGEST.test(run.digest) && Number.isSafeInteger(run.size) && run.size >= 1;
    demand(named, "plan.digest-missing", "bundle.js names no digest and size of a plan");
    demand(run.size <= PLAN_BYTES, "plan.size", `${run.size} bytes; at most ${PLAN_BYTES} are allowed`);
    const bytes = await readWhole(run.files, "plan.json", run.size).catch((error) => {
      throw error.reason === "fetch.bytes" ? new Refusal("plan.size", error.message) : error;
    });
    demand(bytes.length === run.size, "plan.size", `${bytes.length} bytes came; the page was made with ${run.size}`);
    demand(
      (await sha256(bytes)) === run.digest,
      "plan.digest",
      "the file that came has another digest than the page was made with",
    );
    run.plan = readCanonical(bytes, "plan.form");
    demandForm(run.plan, ["module-plan/1"], "plan.form");
    return `${run.plan.modules.length} files`;
  },

  async policy(run) {
    await checkPolicy(run.plan);
    run.tell({ tell: "planned", plan: run.plan });
    return `${run.plan.modules.length} files, ${run.plan.calls.length} calls`;
  },

  async registry(run) {
    await run.fetch([moduleOf(run.plan, "registry")]);
    run.registry = run.record("registry", ["selector-registry/1"], "registry.form");
    checkRegistry(run.plan, run.registry);
    return `route ${run.plan.route}`;
  },

  async receipts(run) {
    const { plan } = run;
    const modules = plan.modules.filter(({ class: own, phase }) => own === "sidecar" && phase === 2);
    await run.fetch(modules);
    run.manifest = run.record("model-manifest", ["model-manifest/1"], "manifest.form");
    checkModelManifest(plan, run.manifest);
    run.manifests = plan.stack.map((_, index) =>
      run.record(`adapter-manifest-${index + 1}`, ["adapter-manifest/1"], "adapter.manifest"),
    );
    await checkAdapterManifests(plan, run.registry, run.manifest, run.manifests);
    run.family = run.texts.has("adapter-family")
      ? run.record("adapter-family", ["adapter-family-receipt/1"], "family.form")
      : null;
    if (run.family) await checkFamily(plan, run.manifest, run.manifests, run.family);
    run.receipt = run.record("assembly-receipt", ["assembly-receipt/1"], "receipt.form");
    await checkReceipt(plan, run.receipt);
    return `${modules.length} files`;
  },

  async evidence(run) {
    const modules = run.plan.modules.filter((module) => module.class === "evidence");
    await run.fetch(modules);
    const records = {};
    for (const { id, role } of modules) records[role] = run.record(id, kindsOf(role), "evidence.form");
    await checkEvidence(run, records, Object.fromEntries(modules.map(({ role, sha256: digest }) => [role, digest])));
    // Only now does anything but the manifests themselves vouch for what they say.
    const names = run.manifests.map(({ order }) => records[`adapter-${order}-source`]?.name);
    run.tell({ tell: "described", manifest: run.manifest, adapters: run.manifests, names });
    return `${modules.length} records`;
  },

  async engine(run) {
    const { plan } = run;
    const module = moduleOf(plan, "engine");
    await run.fetch([module]);
    try {
      run.engine = await Engine.open(run.texts.get("engine"), plan.execution.memory_limit);
    } catch (error) {
      throw error instanceof Refusal
        ? error
        : new Refusal("engine.abi", `this browser cannot run it: ${error.message}`, "engine");
    }
    run.called("engine.open", module);
    return `at most ${Math.round(plan.execution.memory_limit / 2 ** 20)} MiB`;
  },

  async model(run) {
    const { engine, manifest } = run;
    const module = moduleOf(run.plan, "model");
    const block = await run.binary(module);
    engine.checkModel(block, module.size);
    run.called("model.check", module);
    engine.load(block, module.size);
    if (manifest.base) engine.accept(manifest.base);
    const { runtime } = manifest;
    const found = { ...engine.info(), kv_bytes: engine.kvBytes(runtime.context) };
    const stated = { ...manifest, kv_bytes: runtime.kv_bytes };
    for (const field of ["parameters", "vocab_size", "max_context", "tokenizer_sha256", "layout_sha256", "kv_bytes"]) {
      demandFact("model.facts", field, found[field], stated[field], "model");
    }
    run.called("model.load", module);
    return `${module.size.toLocaleString("en")} bytes`;
  },

  async smoke(run) {
    const { positions } = run.manifest.logits;
    run.demandLogits(0, run.manifest.logits, "smoke.logits", "model");
    run.called("model.smoke", moduleOf(run.plan, "model"));
    return `${positions.toLocaleString("en")} positions`;
  },

  async adapters(run) {
    for (const [index, module] of run.plan.modules.filter(({ class: own }) => own === "adapter").entries()) {
      const block = await run.binary(module);
      run.engine.checkAdapter(block, module.size);
      run.called("adapter.check", module);
      run.engine.apply([[block, module.size]]);
      run.adapterFiles.push([block, module.size]);
      const found = run.engine.packageFacts(block);
      for (const field of ["package", "entries", "licence"]) {
        demandFact("adapter.facts", field, found[field], run.manifests[index][field], module.id);
      }
      run.demandState(index + 1, module.id);
      run.called("adapter.apply", module);
    }
    run.count = run.adapterFiles.length;
    const { state_sha256: state } = run.engine.stack();
    demand(
      state === run.receipt.state_sha256,
      "adapter.state",
      `the assembly is in state ${brief(state)}`,
      "assembly-receipt",
    );
    if (run.family) run.demandLogits(run.count, run.family.logits, "smoke.stack", "adapter-family");
    run.called("assembly.state", moduleOf(run.plan, "assembly-receipt"));
    return run.count ? `${run.count} applied` : "none";
  },

  async ready(run) {
    return run.registry.routes[0].visible === "browser" ? "a browser ran it" : "no browser on record";
  },
};

/** A bundle as far as it was verified, and then the model that runs. */
class Assembly {
  constructor(files, expected, tell) {
    this.files = files;
    this.digest = expected?.sha256;
    this.size = expected?.size;
    this.tell = tell;
    this.calls = [];
    this.current = null;
    this.texts = new Map();
    this.adapterFiles = [];
    this.known = new Map();
  }

  /** Put the first `count` packages on the model and take the others off. */
  restack(count) {
    this.engine.detach();
    this.count = 0;
    this.engine.apply(this.adapterFiles.slice(0, count));
    this.count = count;
    if (count > 0) this.demandState(count, `adapter-${count}`);
  }

  /** Digest of the logits with the stack in force. */
  logits() {
    const { positions } = this.manifest.logits;
    if (!this.known.has(this.count)) this.known.set(this.count, this.engine.logitDigest(positions));
    return { positions, sha256: this.known.get(this.count) };
  }

  demandLogits(count, { positions, sha256: wanted }, reason, id) {
    try {
      this.known.set(count, this.engine.logitDigest(positions));
    } catch (error) {
      throw new Refusal(reason, `the engine cannot compute them: ${error.message}`, id, error);
    }
    const found = this.known.get(count);
    demand(found === wanted, reason, `${positions} positions give ${brief(found)}, not ${brief(wanted)}`, id);
  }

  demandState(count, id) {
    const [found, wanted] = [this.engine.stack(), this.manifests[count - 1]];
    const names = [...new Set([...Object.keys(found.fused), ...Object.keys(wanted.fused)])];
    const wrong = names.find((name) => found.fused[name] !== wanted.fused[name]);
    demand(wrong === undefined, "adapter.fused", `${wrong} is not what the manifest says`, id);
    demand(
      found.state_sha256 === wanted.state_sha256,
      "adapter.state",
      `the assembly is in state ${brief(found.state_sha256)}`,
      id,
    );
  }

  /** A text that was fetched, as a record of one of the kinds. */
  record(id, kinds, reason) {
    const value = readCanonical(this.texts.get(id), reason, id);
    demandForm(value, kinds, reason, id);
    this.called("verify", moduleOf(this.plan, id));
    return value;
  }

  /** Fetch the files of one phase side by side and verify them in their order. */
  async fetch(modules) {
    const coming = modules.map(({ id, path, size }) => readWhole(this.files, path, size, id));
    // Only the first refusal in order counts; the others must not go unheard meanwhile.
    for (const file of coming) file.catch(() => {});
    for (const [index, module] of modules.entries()) {
      this.current = module.id;
      const bytes = await coming[index];
      this.demandFile(module, bytes.length, await sha256(bytes));
      this.texts.set(module.id, bytes);
    }
  }

  /** A file that the engine reads, counted straight into its memory. */
  async binary(module) {
    this.current = module.id;
    const { engine } = this;
    const block = engine.take(module.size);
    let at = 0;
    const take = (chunk) => {
      const fits = chunk.subarray(0, module.size - at);
      engine.view(block + at, fits.length).set(fits);
      at += fits.length;
      if (module.class === "model") this.tell({ tell: "progress", step: "model", loaded: at, total: module.size });
    };
    const total = await this.files.read(module.path, module.size, take, module.id);
    this.demandFile(module, total, engine.sha256(block, module.size));
    return block;
  }

  demandFile({ id, path, size, sha256: wanted }, total, found) {
    demand(total === size, "fetch.bytes", `${path} has ${total} bytes; ${size} were planned`, id);
    demand(found === wanted, "fetch.checksum", `${path} has the digest ${brief(found)}, not ${brief(wanted)}`, id);
    this.tell({ tell: "file", module: id });
  }

  called(call, module) {
    this.calls.push({ order: this.calls.length + 1, call, module: module.id, sha256: module.sha256, status: "passed" });
  }
}
