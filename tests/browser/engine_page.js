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
