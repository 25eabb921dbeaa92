/** What the verified manifest says of the model: facts, scorecard, lineage. */

import { byId, digest, el, facts, inBytes, inWords, svg } from "./dom.js";

const CLAIMS = {
  "structural-validation": "its file is sound; nothing was claimed of what it does",
  "runtime-smoke": "it loads and runs; nothing was claimed of its quality",
  "converted-trained": "it was trained, and the scorecard shows how it does",
  "assistant-quality": "it passed the gate for assistants",
};

/** Show everything. */
export function showModel(manifest) {
  const { runtime } = manifest;
  byId("title").textContent = manifest.name;
  byId("facts").replaceChildren(
    facts([
      ["Size", `${inWords(manifest.parameters)} parameters, ${manifest.storage}, ${inBytes(manifest.artifact.size)}`],
      ["Context", `${inWords(manifest.max_context)} tokens, vocabulary ${inWords(manifest.vocab_size)}`],
      ["Memory", `at most ${inBytes(runtime.memory_limit)}; keys and values ${inBytes(runtime.kv_bytes)}`],
      ["Claim", `${manifest.claim}: ${CLAIMS[manifest.claim]}`],
      ["Licence", manifest.licence],
      ["Does not", textsOf(manifest.unsupported)],
      ["Trade-offs", textsOf(manifest.trade_offs)],
      ["Instead", digest(manifest.fallback)],
      ["Artifact", digest(manifest.artifact.sha256)],
    ]),
  );
  byId("scores").replaceChildren(scoresOf(manifest));
  byId("lineage").replaceChildren(lineageOf(manifest.lineage));
  byId("model").hidden = false;
}

const textsOf = (texts) =>
  texts.length
    ? el(
        "ul",
        {},
        texts.map((text) => el("li", {}, text)),
      )
    : null;

/** A row a suite: this model as a disc with its 95 % interval, the champion before it as a ring. */
function scoresOf({ scores, role }) {
  if (scores.length === 0) return el("p", { class: "note" }, "No suite with answers was scored.");
  const compared = scores.some((score) => score.champion_right !== null);
  const rows = scores.map((score) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, score.label, el("span", { class: "dimension" }, score.dimension)),
      el("td", { class: "plot" }, plotOf(score)),
      el(
        "td",
        { class: "number" },
        percent(score.right, score.items),
        el("span", { class: "of" }, `${score.right} of ${score.items}`),
      ),
    ),
  );
  const ticks = el(
    "span",
    { class: "ticks" },
    ["0", "50", "100 %"].map((tick) => el("span", {}, tick)),
  );
  const head = el(
    "tr",
    {},
    el("th", { scope: "col" }, "Suite"),
    el("th", { scope: "col" }, ticks),
    el("th", { scope: "col", class: "number" }, "Right"),
  );
  const legend = [
    el(
      "span",
      { class: "key" },
      svg("svg", { viewBox: "0 0 12 12", "aria-hidden": "true" }, svg("circle", { cx: 6, cy: 6, r: 4, class: "own" })),
      "this model, with its 95 % interval",
    ),
    compared
      ? el(
          "span",
          { class: "key" },
          svg(
            "svg",
            { viewBox: "0 0 12 12", "aria-hidden": "true" },
            svg("circle", { cx: 6, cy: 6, r: 4, class: "other" }),
          ),
          "the champion it was compared with",
        )
      : null,
  ];
  return el(
    "figure",
    {},
    el("table", { class: "scores" }, el("thead", {}, head), el("tbody", {}, rows)),
    el("figcaption", {}, legend, `Items answered exactly, ${role} suites; Wilson intervals.`),
  );
}

function plotOf({ label, right, items, champion_right: champion }) {
  const [low, high] = wilson(right, items);
  const at = (share) => `${(100 * share).toFixed(2)}%`;
  const words = `${label}: ${percent(right, items)}, interval ${percent(low, 1)} to ${percent(high, 1)}`;
  const more = champion === null ? "" : `; the champion ${percent(champion, items)}`;
  return svg(
    "svg",
    { class: "row", role: "img", "aria-label": words + more },
    svg("line", { x1: "0%", x2: "100%", y1: 10, y2: 10, class: "axis" }),
    svg("line", { x1: "50%", x2: "50%", y1: 5, y2: 15, class: "axis" }),
    svg("line", { x1: at(low), x2: at(high), y1: 10, y2: 10, class: "interval" }),
    champion === null ? null : svg("circle", { cx: at(champion / items), cy: 10, r: 5, class: "other" }),
    svg("circle", { cx: at(right / items), cy: 10, r: 4, class: "own" }),
  );
}

const percent = (part, whole) => `${((100 * part) / whole).toFixed(1)} %`;

/** The 95 % interval of a share, 0..1. Wilson 1927, equation 5 with z = 1.96. */
function wilson(right, items) {
  const z = 1.959963984540054;
  const share = right / items;
  const middle = share + (z * z) / (2 * items);
  const width = z * Math.sqrt((share * (1 - share)) / items + (z * z) / (4 * items * items));
  const bound = (value) => Math.min(1, Math.max(0, value / (1 + (z * z) / items)));
  return [bound(middle - width), bound(middle + width)];
}

/** The model, below it what it descends from, and so on; who stands there twice is told in full once. */
function lineageOf(nodes) {
  const byDigest = new Map(nodes.map((node) => [node.digest, node]));
  const told = new Set();
  const branch = (sha256) => {
    const node = byDigest.get(sha256);
    if (!node) return el("li", {}, digest(sha256));
    const again = told.has(sha256);
    told.add(sha256);
    const how = node.operator ? `made by ${node.operator.replace(/\/\d+$/, "")}` : node.kind;
    const head = el(
      "p",
      {},
      el("strong", {}, node.name),
      " ",
      el("span", { class: "how" }, again ? "as above" : how),
      " ",
      digest(sha256),
    );
    const below = again ? [] : node.parents;
    return el("li", { "data-kind": node.kind }, head, below.length ? el("ul", {}, below.map(branch)) : null);
  };
  return el("ul", { class: "tree" }, nodes.length ? branch(nodes[0].digest) : null);
}
