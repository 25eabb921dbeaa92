/** That a line is in the ledger's tree: RFC 9162, section 2.1.3.2, with the hashes of RFC 6962, section 2.1. */

import { hex, sha256, unhex } from "./sources.js";

/**
 * Whether a line stands at `index` in the tree of `size` leaves with this root.
 *
 * @param {string} line The line, without its newline.
 * @param {string[]} path Hashes, the leaf's sibling first, in hexadecimal digits.
 */
export async function checkInclusion(line, index, size, path, root) {
  if (!(index < size)) return false;
  let [place, last] = [index, size - 1];
  let found = await hashOf(0, new TextEncoder().encode(line));
  for (const node of path) {
    if (last === 0) return false;
    if (place % 2 === 1 || place === last) {
      found = await hashOf(1, unhex(node + found));
      while (place % 2 === 0 && place > 0) [place, last] = [place / 2, half(last)];
    } else {
      found = await hashOf(1, unhex(found + node));
    }
    [place, last] = [half(place), half(last)];
  }
  return last === 0 && found === root;
}

// Sizes reach beyond 32 bits, which a shift would cut off.
const half = (number) => Math.floor(number / 2);

/** A leaf's hash begins with 0, a node's with 1. */
const hashOf = (kind, bytes) => sha256(unhex(`0${kind}${hex(bytes)}`));
