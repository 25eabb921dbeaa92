/** Registry, manifests and receipts: held against the plan and against each other. */

import { canonicalBytes, same } from "./canonical.js";
import { demand } from "./checks.js";
import { sha256, unhex } from "./sources.js";

const STRATEGY = "direct";

/** The module of that id, or undefined. */
export const moduleOf = (plan, id) => plan.modules.find((module) => module.id === id);

/** Hold the registry against the plan. */
export function checkRegistry(plan, registry) {
  const { model, sidecar, sidecars, adapters } = plan.budgets;
  const own = [
    registry.model_byte_budget,
    registry.sidecar_byte_budget,
    registry.sidecars_byte_budget,
    registry.adapter_byte_budget,
  ];
  demand(
    same(own, [model, sidecar, sidecars, adapters]),
    "registry.budget",
    "budgets are not those of the plan",
    "registry",
  );
  const family = moduleOf(plan, "adapter-family")?.sha256 ?? null;
  const file = moduleOf(plan, "model");
  const wanted = {
    route: plan.route,
    strategy: STRATEGY,
    visible: moduleOf(plan, "evidence-browser-smoke") ? "browser" : "local",
    model: { sha256: file.sha256, size: file.size },
    manifest: moduleOf(plan, "model-manifest").sha256,
  };
  const found = registry.routes.map(({ family: _, ...route }) => route);
  const route = registry.default_strategy === STRATEGY && same(found, [wanted]);
  demand(route, "registry.route", `routes are not the one of the plan, ${plan.route}`, "registry");
  const stack = plan.modules
    .filter((module) => module.class === "adapter")
    .map(({ sha256: digest, size }) => ({ sha256: digest, size }));
  const families = registry.families.map(({ receipt, adapters: packages }) => ({
    receipt,
    stack: packages.map(({ package: _, ...file_ }) => file_),
  }));
  const fits = registry.routes[0].family === family && same(families, family ? [{ receipt: family, stack }] : []);
  demand(fits, "registry.family", "families are not the stack of the plan", "registry");
}

/** Hold the model's manifest against the plan. */
export function checkModelManifest(plan, manifest) {
  const [file, run, needs] = [moduleOf(plan, "model"), plan.execution, manifest.runtime];
  const refuse = (holds, reason, detail) => demand(holds, reason, detail, "model-manifest");
  refuse(
    same(manifest.artifact, { sha256: file.sha256, size: file.size }),
    "manifest.model",
    "speaks of another file than the plan fetches",
  );
  const whole =
    (manifest.base === null) === (manifest.quantise_receipt === null) && manifest.base !== manifest.artifact.sha256;
  refuse(whole, "manifest.model", "a quantised build names its f32 base and the receipt of its making, or neither");
  const planned = [run.engine, run.abi, run.memory_limit, run.context];
  refuse(
    same([needs.engine, needs.abi, needs.memory_limit, needs.context], planned),
    "manifest.runtime",
    "needs another engine, memory or context than the plan gives",
  );
  // Tensors in f32 are read in place, all others decoded to four bytes an element.
  const [decoded, all] = [needs.decoded_bytes, 4 * manifest.parameters];
  const expected = { f32: decoded === 0, mixed: decoded > 0 && decoded < all }[manifest.storage] ?? decoded === all;
  refuse(expected, "manifest.runtime", "decodes other tensors than its storage says");
  const most = manifest.scores.every(
    ({ right, items, champion_right: champion }) => right <= items && (champion ?? 0) <= items,
  );
  refuse(most, "manifest.model", "more right answers are shown than there are items");
  const { positions } = manifest.logits;
  const fits = needs.context <= manifest.max_context && positions >= 1 && positions < Math.max(2, manifest.max_context);
  refuse(fits, "manifest.runtime", "asks for more positions than the model has");
}

/** What is wrong with a lineage; null if it is the first node and everything that descends to it, each once. */
export function faultInLine(line) {
  const nodes = new Map(line.map((node) => [node.digest, node]));
  if (nodes.size < line.length) return "a node stands twice";
  const made = ({ parents, operator }) => [parents.length > 0, operator !== null];
  if (line.some((node) => made(node).includes(node.kind !== "candidate"))) {
    return "a candidate has no parents or no operator, or something else has";
  }
  const pending = line.slice(0, 1).map((node) => node.digest);
  const seen = new Set();
  while (pending.length) {
    const digest = pending.pop();
    if (!nodes.has(digest)) return "a parent is not in it";
    if (seen.has(digest)) continue;
    seen.add(digest);
    for (const parent of nodes.get(digest).parents) pending.push(parent);
  }
  return seen.size === nodes.size ? null : "a node is nobody's parent";
}

/** Hold the manifests of a stack against plan, registry, model and each other. */
export async function checkAdapterManifests(plan, registry, model, manifests) {
  const files = plan.modules.filter((module) => module.class === "adapter");
  const packages = registry.families.flatMap((family) => family.adapters);
  for (const [index, own] of manifests.entries()) {
    const facts = {
      order: [own.order, index + 1],
      artifact: [own.artifact, { sha256: files[index].sha256, size: files[index].size }],
      package: [own.package, packages[index]?.package],
      base: [own.base, model.base ?? model.artifact.sha256],
      tokenizer_sha256: [own.tokenizer_sha256, model.tokenizer_sha256],
      layout_sha256: [own.layout_sha256, model.layout_sha256],
      state_sha256: [own.state_sha256, await stateOf(model.artifact.sha256, plan.stack.slice(0, index + 1))],
      entries: [own.entries >= 1 && own.entries <= Object.keys(own.fused).length, true],
      fallback: [own.fallback, model.artifact.sha256],
    };
    for (const [field, [found, wanted]] of Object.entries(facts)) {
      demand(
        same(found, wanted),
        "adapter.manifest",
        `${field} is not what plan, registry and model say`,
        `adapter-manifest-${index + 1}`,
      );
    }
  }
  for (const [index, above] of manifests.slice(1).entries()) {
    const kept = Object.keys(manifests[index].fused).every((name) => Object.hasOwn(above.fused, name));
    demand(
      kept,
      "adapter.manifest",
      "a tensor that a package below it changed is not among the fused",
      `adapter-manifest-${index + 2}`,
    );
  }
}

/** Hold the receipt of a stack against plan, model and manifests; it follows from them whole, but for the logits. */
export async function checkFamily(plan, model, manifests, family) {
  const { stack } = plan;
  const pairs = stack.flatMap((lower, index) => stack.slice(index + 1).map((upper) => [lower, upper]));
  const wanted = {
    base: model.base ?? model.artifact.sha256,
    model: model.artifact.sha256,
    stack,
    manifests: manifests.map((_, index) => moduleOf(plan, `adapter-manifest-${index + 1}`).sha256),
    bytes: manifests.reduce((sum, manifest) => sum + manifest.artifact.size, 0),
    budget: plan.budgets.adapters,
    state_sha256: await stateOf(model.artifact.sha256, stack),
    compatible: pairs,
  };
  for (const [field, value] of Object.entries(wanted)) {
    demand(same(family[field], value), "family.stack", `${field} is not that of the stack`, "adapter-family");
  }
  demand(
    family.logits.positions === model.logits.positions,
    "family.stack",
    "is the receipt of other positions",
    "adapter-family",
  );
}

/** Hold the assembly receipt against everything it binds. */
export async function checkReceipt(plan, receipt) {
  const refuse = (holds, reason, detail) => demand(holds, reason, detail, "assembly-receipt");
  const bound = plan.modules.filter(
    ({ class: own, id, phase }) => own === "evidence" || (phase === 2 && id !== "assembly-receipt"),
  );
  const facts = {
    route: [
      [receipt.route, receipt.channel],
      [plan.route, plan.route],
    ],
    model: [receipt.model, moduleOf(plan, "model").sha256],
    family: [receipt.family, moduleOf(plan, "adapter-family")?.sha256 ?? null],
    browser_smoke: [receipt.browser_smoke, moduleOf(plan, "evidence-browser-smoke")?.sha256 ?? null],
    evidence: [receipt.evidence, Object.fromEntries(bound.map(({ id, sha256: digest }) => [id, digest]))],
  };
  for (const [field, [found, wanted]] of Object.entries(facts)) {
    refuse(same(found, wanted), "receipt.binding", `${field} is not what is planned`);
  }
  refuse(
    receipt.calls_sha256 === (await sha256(canonicalBytes(plan.calls))),
    "receipt.calls",
    "binds other calls than the plan has",
  );
  const state = await stateOf(receipt.model, plan.stack);
  refuse(
    receipt.state_sha256 === state,
    "receipt.state",
    "binds another assembly than the model with the stack of the plan",
  );
  refuse(receipt.eval_case === plan.eval_case, "receipt.case", "binds other suites or items than the plan");
}

/** Assembly-state checksum: SHA-256 over the raw digests, the model first, then the packages in order. */
export function stateOf(model, stack) {
  const raw = [model, ...stack].map(unhex);
  return sha256(new Uint8Array(raw.flatMap((digest) => [...digest])));
}
