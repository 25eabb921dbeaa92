/**
 * The engine in the page: one WebAssembly.Memory, one model, an ordered stack of adapters.
 *
 * Every rule of models, adapters and text lives in the engine. Here bytes are moved in and out of its memory, and what
 * it refuses becomes an `EngineRefused` with the engine's own reason.
 */

import { demand } from "./checks.js";
import { hex, unhex } from "./sources.js";

const PAGE = 65536;
const ABI = 1;
// Enough for the engine's own data and stack; it grows from there up to the planned limit.
const FIRST_PAGES = 64;

export const BOS = 256;
export const EOS = 257;

/** What the engine refused, with its own reason, such as "slm.checksum" or "adapter.index.order". */
export class EngineRefused extends Error {
  constructor(reason, place) {
    super(place < 0 ? reason : `${reason}, entry ${place}`);
    this.reason = reason;
    this.place = place;
  }
}

/** The engine and its memory; drop it, and the memory goes with it. */
export class Engine {
  /**
   * Compile the engine and give it a memory of its own.
   *
   * @param {Uint8Array} bytes The WebAssembly module.
   * @param {number} memoryLimit Most bytes of memory.
   */
  static async open(bytes, memoryLimit) {
    const module = await WebAssembly.compile(bytes);
    const wanted = WebAssembly.Module.imports(module).map(({ module: from, name, kind }) => `${kind} ${from}.${name}`);
    demand(
      wanted.join() === "memory env.memory",
      "engine.abi",
      `asks for ${wanted.join(", ") || "nothing"}, not for a memory`,
    );
    const most = Math.floor(memoryLimit / PAGE);
    const memory = new WebAssembly.Memory({ initial: Math.min(FIRST_PAGES, most), maximum: most });
    const engine = new Engine(await WebAssembly.instantiate(module, { env: { memory } }), memory);
    const abi = engine.abi();
    demand(abi === ABI, "engine.abi", `speaks version ${abi}; this page speaks ${ABI}`);
    return engine;
  }

  constructor(instance, memory) {
    this.exports = instance.exports;
    this.memory = memory;
    this.logits = 0;
    this.session = 0;
    this.state = 0;
  }

  abi() {
    return typeof this.exports.sb_abi === "function" ? this.exports.sb_abi() : 0;
  }

  /** A block of the engine's memory; the engine says whether there is any left. */
  take(size) {
    const block = this.exports.sb_alloc(Math.max(size, 1)) >>> 0;
    if (block === 0) throw this.#refusal();
    return block;
  }

  free(block) {
    this.exports.sb_free(block);
  }

  /** A view of the memory, good until the engine is called again: growing the memory voids it. */
  view(block, size) {
    return new Uint8Array(this.memory.buffer, block, size);
  }

  /** Copy bytes into a new block. */
  put(bytes) {
    const block = this.take(bytes.length);
    this.view(block, bytes.length).set(bytes);
    return block;
  }

  /** SHA-256 of a block, by the engine. */
  sha256(block, size) {
    return this.#borrow(32, (out) => {
      this.#call("sb_sha256", block, size, out);
      return hex(this.view(out, 32));
    });
  }

  /** Check a model's file and make it the one that runs; the block belongs to the engine from then on. */
  load(block, size) {
    this.#call("sb_model_load", block, size);
    this.logits = this.session = 0;
  }

  /** Check a model's file and change nothing. */
  checkModel(block, size) {
    this.#call("sb_model_check", block, size);
  }

  /** Name the f32 model that the running quantised one was made of, as its verified receipt says. */
  accept(base) {
    this.#borrowed(unhex(base), (block) => this.#call("sb_accept", block));
  }

  /** Facts of the running model. */
  info() {
    const at = this.exports.sb_model_info() >>> 0;
    if (at === 0) throw new EngineRefused("engine.no-model", -1);
    const data = new DataView(this.memory.buffer, at, 200);
    const digest = (offset) => hex(this.view(at + offset, 32));
    return {
      vocab_size: data.getUint32(0, true),
      layers: data.getUint32(8, true),
      max_context: data.getUint32(28, true),
      tied: data.getUint32(40, true) === 1,
      kv_width: data.getUint32(16, true) * data.getUint32(20, true),
      parameters: Number(data.getBigUint64(48, true)),
      sha256: digest(72),
      tokenizer_sha256: digest(104),
      layout_sha256: digest(136),
    };
  }

  /** Bytes of the keys and values of that many positions. */
  kvBytes(positions) {
    const { layers, kv_width } = this.info();
    return 2 * 4 * layers * kv_width * positions;
  }

  /** What a package says of itself; only of one that the engine took. */
  packageFacts(block) {
    const data = new DataView(this.memory.buffer, block);
    const text = (at, size) => new TextDecoder().decode(this.view(block + at, size).slice());
    const { licence } = JSON.parse(text(128, data.getUint32(96, true)));
    return { package: text(0, 4), entries: data.getUint32(20, true), licence };
  }

  /** Check an adapter's file by itself and change nothing. */
  checkAdapter(block, size) {
    this.#call("sb_adapter_check", block, size);
  }

  /** Put packages, each a block and its size, on top of the stack in order; all, or throw and change nothing. */
  apply(packages) {
    this.#borrowed(words(packages.flat()), (pairs) => this.#call("sb_stack_apply", pairs, packages.length));
  }

  /** Take all packages off: the base's own bytes again. */
  detach() {
    this.#call("sb_stack_detach");
  }

  /** What is in force: digests of the packages, of every fused tensor by name, and of the whole assembly. */
  stack() {
    const at = this.exports.sb_stack_info() >>> 0;
    if (at === 0) throw new EngineRefused("engine.no-model", -1);
    const data = new DataView(this.memory.buffer);
    const [applied, count] = [data.getUint32(at, true), data.getUint32(at + 4, true)];
    const [digests, tensors] = [data.getUint32(at + 48, true), data.getUint32(at + 52, true)];
    const names = this.#names();
    const fused = Array.from({ length: count }, (_, index) => {
      const entry = tensors + 40 * index;
      return [names.get(data.getBigUint64(entry, true)), hex(this.view(entry + 8, 32))];
    });
    return {
      applied: Array.from({ length: applied }, (_, index) => hex(this.view(digests + 32 * index, 32))),
      fused: Object.fromEntries(fused),
      state_sha256: hex(this.view(at + 16, 32)),
    };
  }

  /** SHA-256 over the logits of that many positions, with the stack in force. */
  logitDigest(positions) {
    return this.#borrow(32, (out) => {
      this.#call("sb_logit_digest", positions, out);
      return hex(this.view(out, 32));
    });
  }

  /** Ids of a text that will be continued: begin, then the text. */
  encode(text) {
    const bytes = new TextEncoder().encode(text);
    const capacity = bytes.length + 2;
    return this.#borrowed(bytes, (block) =>
      this.#borrow(4 * capacity, (out) => {
        const count = this.#call("sb_encode", block, bytes.length, out, capacity, 1, 0);
        return Array.from(new Uint32Array(this.memory.buffer, out, count));
      }),
    );
  }

  /** Bytes of a text from ids, or null where they are no text (yet). */
  decode(ids, capacity = PAGE) {
    return this.#borrowed(words(ids), (block) =>
      this.#borrow(capacity, (out) => {
        try {
          const size = this.#call("sb_decode", block, ids.length, out, capacity);
          return new TextDecoder().decode(this.view(out, size).slice());
        } catch (error) {
          if (error.reason === "tokenizer.decode.utf8") return null;
          throw error;
        }
      }),
    );
  }

  /** Begin a new text: an empty cache of that many positions, and the sampler's generator at its seed. */
  begin(positions, seed) {
    if (this.session) this.#call("sb_session_close", this.session);
    this.session = this.#call("sb_session_open", positions);
    this.logits ||= this.take(4 * this.info().vocab_size);
    this.state ||= this.take(8);
    new DataView(this.memory.buffer).setBigUint64(this.state, BigInt.asUintN(64, seed) || 1n, true);
  }

  /** Feed ids to the text that was begun; what the last one leads to is ready to be picked from. */
  feed(ids) {
    this.#borrowed(words(ids), (block) => this.#call("sb_feed", this.session, block, ids.length, this.logits, 0));
  }

  /** The next id. */
  pick({ temperature, top_k, top_p }) {
    return this.#call("sb_pick", this.logits, temperature, top_k, top_p, this.state);
  }

  /** Positions in the cache. */
  length() {
    return this.session ? this.exports.sb_session_length(this.session) : 0;
  }

  #call(name, ...values) {
    const status = this.exports[name](...values);
    if (status < 0) throw this.#refusal();
    return status;
  }

  #refusal() {
    const at = this.exports.sb_reason() >>> 0;
    const bytes = new Uint8Array(this.memory.buffer, at, 64);
    const reason = new TextDecoder().decode(bytes.slice(0, bytes.indexOf(0)));
    return new EngineRefused(reason, this.exports.sb_place());
  }

  #borrow(size, use) {
    const block = this.take(size);
    try {
      return use(block);
    } finally {
      this.free(block);
    }
  }

  #borrowed(bytes, use) {
    return this.#borrow(bytes.length, (block) => {
      this.view(block, bytes.length).set(bytes);
      return use(block);
    });
  }

  #names() {
    const { layers, tied } = this.info();
    const inner = ["attn_norm", "wq", "wk", "wv", "wo", "ffn_norm", "w1", "w3", "w2"];
    const all = Array.from({ length: layers }, (_, layer) => inner.map((part) => `layers.${layer}.${part}.weight`));
    const names = ["tok_embeddings.weight", ...all.flat(), "norm.weight", ...(tied ? [] : ["output.weight"])];
    return new Map(names.map((name) => [fnv1a(name), name]));
  }
}

/** FNV-1a, 64 bits: how a container's directory names its tensors. */
function fnv1a(text) {
  let hash = 0xcbf29ce484222325n;
  for (const byte of new TextEncoder().encode(text)) hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
  return hash;
}

const words = (ids) => new Uint8Array(new Uint32Array(ids).buffer);
