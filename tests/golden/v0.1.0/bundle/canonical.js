/** Canonical JSON (RFC 8785): what every text file of a bundle is, byte for byte. */

import { Refusal, demand } from "./checks.js";

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** The RFC 8785 text of plain JSON values; JavaScript's own numbers and strings are spelled as the RFC asks. */
export function canonicalText(value) {
  if (Array.isArray(value)) return `[${value.map(canonicalText).join(",")}]`;
  if (value !== null && typeof value === "object") {
    // Sorting strings compares UTF-16 code units, which is the order the RFC asks for.
    const members = Object.keys(value)
      .sort()
      .map((key) => `${canonicalText(key)}:${canonicalText(value[key])}`);
    return `{${members.join(",")}}`;
  }
  if (typeof value === "string" && !value.isWellFormed()) throw new TypeError("half of a surrogate pair is no text");
  if (typeof value === "number" && !Number.isFinite(value)) throw new TypeError("not a number that JSON knows");
  return JSON.stringify(value);
}

/** The RFC 8785 bytes of plain JSON values. */
export const canonicalBytes = (value) => new TextEncoder().encode(canonicalText(value));

/**
 * Read JSON that is canonical, or refuse: writing it again has to give the same bytes, which catches duplicate keys,
 * other spellings of numbers, white space, key order and byte-order marks at once.
 */
export function readCanonical(bytes, reason, module = null) {
  try {
    const text = utf8.decode(bytes);
    const value = JSON.parse(text);
    demand(canonicalText(value) === text, reason, "the bytes are not in canonical form (RFC 8785)", module);
    return value;
  } catch (error) {
    throw error instanceof Refusal ? error : new Refusal(reason, `not canonical JSON: ${error.message}`, module);
  }
}

/** Whether two plain JSON values are the same. */
export const same = (one, other) => canonicalText(one) === canonicalText(other);
