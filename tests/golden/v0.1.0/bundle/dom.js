/** Building the page out of elements; text is always text, never markup, and nothing carries a style of its own. */

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes and children; null, undefined and false attributes are left out. */
export function el(tag, attributes = {}, ...children) {
  return furnished(document.createElement(tag), attributes, children);
}

/** The same for a drawing. */
export function svg(tag, attributes = {}, ...children) {
  return furnished(document.createElementNS(SVG, tag), attributes, children);
}

function furnished(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false)
      element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** The element of that id. */
export const byId = (id) => document.getElementById(id);

/** Bytes for people. */
export function inBytes(count) {
  if (count < 1000) return `${count}\u00a0B`;
  const [unit, size] = count < 1e6 ? ["kB", 1e3] : ["MB", 1e6];
  return `${(count / size).toLocaleString("en", { maximumFractionDigits: count < 1e7 ? 1 : 0 })}\u00a0${unit}`;
}

/** A whole number for people. */
export const inWords = (count) => count.toLocaleString("en");

/** The beginning of a digest; the whole of it stands in the title and for screen readers in the text beside. */
export function digest(sha256) {
  return el("code", { class: "digest", title: sha256 }, sha256 ? `${sha256.slice(0, 12)}…` : "none");
}

/** A whole digest that may break anywhere. */
export const wholeDigest = (sha256) => el("code", { class: "digest whole" }, sha256);

/** A list of terms and what they are; rows without a value are left out. */
export function facts(rows) {
  const given = rows.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return el(
    "dl",
    { class: "facts" },
    given.map(([term, value]) => el("div", {}, el("dt", {}, term), el("dd", {}, value))),
  );
}
