/** Where the files of a bundle come from: fetched from beside the page, or embedded in it. Both count every byte. */

import { Refusal, demand } from "./checks.js";

/** Files that are fetched, each only when it is asked for and never past its planned size. */
export class FetchedFiles {
  /** @param {string} base Address of the bundle's folder. */
  constructor(base) {
    this.base = base;
  }

  /**
   * Read one file and hand its bytes on as they come.
   *
   * @param {string} path Path inside the bundle.
   * @param {number} limit Most bytes; the request is aborted at the first byte more.
   * @param {(chunk: Uint8Array) => void} take Called with every chunk, in order.
   * @param {string | null} module Id of the module, for refusals.
   * @returns {Promise<number>} How many bytes came.
   */
  async read(path, limit, take, module = null) {
    const abort = new AbortController();
    const response = await this.#request(path, abort.signal, module);
    let total = 0;
    // An answer may come without any body at all.
    const reader = response.body?.getReader();
    if (!reader) return total;
    try {
      for (;;) {
        const { done, value } = await this.#next(reader, path, module);
        if (done) return total;
        total += value.length;
        demand(total <= limit, "fetch.bytes", `${path} is longer than the ${limit} bytes that were planned`, module);
        take(value);
      }
    } catch (error) {
      abort.abort();
      throw error;
    }
  }

  async #request(path, signal, module) {
    const address = new URL(path, this.base);
    const options = {
      mode: "same-origin",
      redirect: "manual",
      credentials: "omit",
      cache: "no-store",
      referrerPolicy: "no-referrer",
    };
    const response = await fetch(address, { ...options, signal }).catch(() => null);
    if (!response) throw new Refusal("fetch.missing", `${path} could not be fetched`, module);
    const moved = response.type === "opaqueredirect";
    if (moved)
      throw new Refusal("fetch.missing", `${path}: the server points elsewhere, which is not followed`, module);
    if (!response.ok) throw new Refusal("fetch.missing", `${path}: the server answered ${response.status}`, module);
    return response;
  }

  async #next(reader, path, module) {
    try {
      return await reader.read();
    } catch (error) {
      throw new Refusal("fetch.missing", `${path}: the connection broke off (${error.message})`, module);
    }
  }
}

/** Files that are part of the page itself, in base64. */
export class EmbeddedFiles {
  /** @param {string} files JSON: path inside the bundle -> base64. */
  constructor(files) {
    this.files = new Map(Object.entries(JSON.parse(files)));
  }

  /** As `FetchedFiles.read`. */
  async read(path, limit, take, module = null) {
    const encoded = this.files.get(path);
    if (encoded === undefined) throw new Refusal("fetch.missing", `${path} is not in this page`, module);
    const step = 1 << 20;
    let total = 0;
    for (let at = 0; at < encoded.length; at += step) {
      const chunk = Uint8Array.from(atob(encoded.slice(at, at + step)), (character) => character.charCodeAt(0));
      total += chunk.length;
      demand(total <= limit, "fetch.bytes", `${path} is longer than the ${limit} bytes that were planned`, module);
      take(chunk);
    }
    return total;
  }
}

/** The whole of one file. */
export async function readWhole(files, path, limit, module = null) {
  const chunks = [];
  const total = await files.read(path, limit, (chunk) => chunks.push(chunk), module);
  const bytes = new Uint8Array(total);
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.length;
  }
  return bytes;
}

/** SHA-256 as 64 hexadecimal digits, by the browser. */
export async function sha256(bytes) {
  return hex(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)));
}

/** Bytes as hexadecimal digits. */
export const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

/** Hexadecimal digits as bytes. */
export const unhex = (text) => Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));
