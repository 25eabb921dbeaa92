// What the tests ask of the page's own engine, as functions of one module.

import { Engine } from "./engine.js";

const LIMIT = 1 << 30;
const bytesOf = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
const wasm = fetch("engine.wasm").then(async (response) => new Uint8Array(await response.arrayBuffer()));

async function opened() {
  return Engine.open(await wasm, LIMIT);
}

function put(engine, bytes) {
  return [engine.put(bytes), bytes.length];
}

/** Run something; what the engine refuses is its reason. */
function attempt(work) {
  try {
    return { found: work() };
  } catch (error) {
    if (error.constructor.name !== "EngineRefused") throw error;
    return { refused: error.reason, place: error.place };
  }
}

/** Logit digests without packages, with each of them, with all, and without again. */
export async function digests({ model, base, packages, positions }) {
  const engine = await opened();
  engine.load(...put(engine, bytesOf(model)));
  if (base) engine.accept(base);
  const files = packages.map((file) => put(engine, bytesOf(file)));
  const found = { none: engine.logitDigest(positions) };
  for (const [name, chosen] of [...files.map((file, index) => [`${index}`, [file]]), ["all", files]]) {
    engine.apply(chosen);
    found[name] = engine.logitDigest(positions);
    engine.detach();
  }
  found.again = engine.logitDigest(positions);
  return found;
}

/** Every case of the table of packages: what comes of it, and whether a refused one left everything as it was. */
export async function adapters({ models, packages, cases }) {
  const results = {};
  for (const one of cases) {
    const engine = await opened();
    engine.load(...put(engine, bytesOf(models[one.model])));
    const { sha256 } = engine.info();
    if (one.accepted[sha256]) engine.accept(one.accepted[sha256]);
    const files = one.packages.map((name) => put(engine, bytesOf(packages[name])));
    const state = () => JSON.stringify([engine.stack(), attempt(() => engine.logitDigest(3))]);
    const before = state();
    const alone = files.map((file) => attempt(() => engine.checkAdapter(...file)).refused ?? null);
    const applied = attempt(() => engine.apply(files));
    const [stack, after] = [engine.stack(), state()];
    if (!applied.refused) engine.detach();
    const detached = state();
    results[one.id] = {
      alone,
      refused: applied.refused ?? null,
      place: applied.place ?? null,
      stack,
      unchanged: before === after,
      restored: before === detached,
    };
  }
  return results;
}

/** Every case of the table of containers, with one and the same good model loaded before each. */
export async function containers({ bases, cases }) {
  const engine = await opened();
  const raw = Object.fromEntries(Object.entries(bases).map(([name, text]) => [name, bytesOf(text)]));
  const [good] = Object.values(raw);
  engine.load(...put(engine, good));
  const standing = JSON.stringify([engine.info(), engine.logitDigest(2)]);
  const results = {};
  for (const one of cases) {
    const bytes = assembled(raw[one.base], one.pieces);
    const [block, size] = put(engine, bytes);
    const checked = attempt(() => engine.checkModel(block, size)).refused ?? null;
    const loaded = attempt(() => engine.load(block, size)).refused ?? null;
    results[one.id] = { checked, loaded, info: engine.info() };
    if (loaded) results[one.id].standing = JSON.stringify([engine.info(), engine.logitDigest(2)]) === standing;
    else engine.load(...put(engine, good));
  }
  return results;
}

/** The file of a case: pieces of its base, and texts in base64. */
export function assembled(base, pieces) {
  const parts = pieces.map((piece) => {
    if (typeof piece === "string") return bytesOf(piece);
    const [first, second] = piece;
    if (typeof first === "number") return base.subarray(first, second);
    const one = bytesOf(first);
    const many = new Uint8Array(one.length * second);
    for (let index = 0; index < second; index += 1) many.set(one, index * one.length);
    return many;
  });
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

const encoded = (value) => new TextEncoder().encode(JSON.stringify(value));

/**
 * Whole verifications of a bundle whose parts were exchanged for others, garbage for evidence, nothing sealed again.
 *
 * @param {Record<string, string>} files Path -> base64 of a good bundle.
 * @param {object[]} variants What is put in place of the model, its base and the packages.
 */
export async function verified({ files, variants }) {
  const { verify } = await import("./verify.js");
  const good = new Map(Object.entries(files).map(([path, text]) => [path, bytesOf(text)]));
  const plan = JSON.parse(new TextDecoder().decode(good.get("plan.json")));
  const results = [];
  for (const variant of variants) {
    const bundle = new Map(good);
    bundle.set("plan.json", encoded(exchanged(plan, bundle, variant)));
    const source = {
      async read(path, _, take) {
        const bytes = bundle.get(path);
        take(bytes);
        return bytes.length;
      },
    };
    const told = [];
    const assembly = await verify(source, { sha256: variant.digest ?? "0".repeat(64), size: 1 }, (message) =>
      told.push(message),
    );
    const { step, reason, engine } = told.findLast((message) => message.tell === "refused") ?? {};
    results.push({ ready: assembly !== null, step, reason, engine, fused: assembly?.engine.stack().fused });
  }
  return results;
}

function exchanged(plan, bundle, { model, packages, base }) {
  const modules = [];
  const of = (own) => plan.modules.filter((module) => module.class === own);
  const put = (module, bytes) => {
    bundle.set(module.path, bytes);
    modules.push({ ...module, size: bytes.length });
  };
  for (const module of plan.modules) {
    if (module.class === "model") put(module, assembled(model.whole ? bytesOf(model.whole) : null, model.pieces));
    else if (module.class !== "adapter") modules.push(module);
  }
  const files = packages.map(bytesOf);
  for (const [index, bytes] of files.entries())
    put({ ...of("adapter")[0], id: `adapter-${index + 1}`, path: `adapters/${index}` }, bytes);
  const say = (id, more) => {
    const { path } = plan.modules.find((module) => module.id === id);
    bundle.set(
      path,
      encoded({
        ...JSON.parse(new TextDecoder().decode(bundle.get(path))),
        ...more,
        logits: { positions: 1, sha256: "" },
      }),
    );
  };
  say("model-manifest", { base });
  say("adapter-family", {});
  for (const module of of("evidence")) bundle.set(module.path, GARBLED);
  return { ...plan, modules, stack: files.map(() => ""), execution: { ...plan.execution, memory_limit: LIMIT } };
}

// Enough for the page's questions to have something to look at, and nothing that is true.
const lists = ["residents", "members", "checks", "gates", "results", "standings", "entries", "parents", "inputs"];
const GARBLED = encoded({
  ...Object.fromEntries(lists.map((name) => [name, []])),
  expected: {},
  operator: {},
  source: {},
  checkpoint: { root: "00" },
  note: "",
});

/** Whether texts are read as records of their kinds: the reason, or null, one a text. */
export async function read({ texts }) {
  const { readCanonical } = await import("./canonical.js");
  const { demandForm } = await import("./forms.js");
  return texts.map(([kinds, text]) => {
    try {
      const value = readCanonical(bytesOf(text), "canonical");
      if (kinds) demandForm(value, kinds, "form");
      return null;
    } catch (error) {
      return error.reason ?? String(error);
    }
  });
}

/** Start a worker that takes that much of an engine's memory, and keeps it until it is ended; how much it has. */
export async function hold({ bytes }) {
  globalThis.holder = new Worker("held_worker.js", { type: "module" });
  globalThis.holder.postMessage([await wasm, bytes]);
  return new Promise((resolve) => (globalThis.holder.onmessage = ({ data }) => resolve(data)));
}
