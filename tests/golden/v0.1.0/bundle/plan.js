/** The module plan: everything about a file that follows from its name, and what every plan has to keep. */

import { canonicalBytes, same } from "./canonical.js";
import { demand } from "./checks.js";
import { sha256 } from "./sources.js";

export const PLAN_BYTES = 1 << 20;
const PROFILE = "studbook-browser/1";
const EXECUTION = "wasm32-simd128/1";
const [POLICY, ORIGIN, REDIRECTS] = ["planned-only", "same-origin", "refuse"];
const BUDGETS = { model: 33_554_432, sidecar: 1 << 20, sidecars: 16 << 20, adapters: 1 << 20 };
const ENGINE_BUDGET = 4 << 20;
const MAX_ADAPTERS = 16;
const [MEMORY_PAGE, MEMORY_MOST] = [1 << 16, 2 ** 32];

// How a file of the page may be called, and the files beside them that are not the page's own.
const PLAIN_NAME = /^[a-z0-9][a-z0-9._-]{0,63}$/;
const GENERATED = ["bundle.js", "plan.json", "registry.json"];

const EVIDENCE = [
  "ledger",
  "review",
  "recipe",
  "operator-receipt",
  "candidate",
  "template",
  "promotion",
  "admission",
  "promotion-champion",
  "move",
  "smoke",
  "evaluation",
  "decision",
];
// Only a champion that a person promoted has a second template.
const OPTIONAL = "promotion-champion";
const BROWSER = "browser-smoke";
const NUMBERED = /^(?:(adapter-manifest|adapter)-[1-9][0-9]?|evidence-(adapter-[1-9][0-9]?-source))$/;
const SIDECARS = {
  registry: ["selector-registry", 1],
  "model-manifest": ["model-manifest", 2],
  "adapter-family": ["adapter-family-receipt", 2],
  "assembly-receipt": ["assembly-receipt", 2],
};
const FOLDERS = {
  sidecar: ["sidecars", "json"],
  evidence: ["evidence", "json"],
  engine: ["engine", "wasm"],
  model: ["models", "slm"],
  adapter: ["adapters", "adp"],
};
const CALLS = {
  sidecar: ["verify"],
  evidence: ["verify"],
  engine: ["engine.open"],
  model: ["model.check", "model.load", "model.smoke"],
  adapter: ["adapter.check", "adapter.apply"],
};

/** Hold a plan against the rules of every plan, before anything it names is fetched; the first broken one refuses. */
export async function checkPolicy(plan) {
  const build = await sha256(canonicalBytes(plan.page.files));
  for (const [reason, ask] of RULES) {
    for (const [detail, module] of ask(plan, build)) demand(false, reason, detail, module ?? null);
  }
}

const RULES = [
  ["plan.profile", profile],
  ["plan.execution", execution],
  ["plan.fetch-policy", fetchPolicy],
  ["plan.origin-policy", originPolicy],
  ["plan.fetch-count", fetchCount],
  ["plan.model-budget", modelBudget],
  ["plan.sidecar-budget", sidecarBudget],
  ["plan.adapter-budget", adapterBudget],
  ["plan.resource", resource],
  ["plan.role", (plan) => differing(plan, "role")],
  ["plan.slot", (plan) => differing(plan, "slot")],
  ["plan.phase", (plan) => differing(plan, "phase")],
  ["plan.dependency", dependency],
  ["plan.bytes", bytes],
  ["plan.stack", stack],
  ["plan.graph", graph],
  ["plan.page", page],
];

function* profile(plan) {
  if (plan.profile !== PROFILE) yield [`profile ${plan.profile}; this page knows ${PROFILE}`];
}

function* execution({ execution: own, modules }) {
  const found = [own.profile, own.abi, own.threads];
  if (!same(found, [EXECUTION, 1, 1])) yield [`profile ${found[0]}, interface ${found[1]}, ${found[2]} threads`];
  const pages = own.memory_limit / MEMORY_PAGE;
  if (!(pages >= 1 && own.memory_limit <= MEMORY_MOST && Number.isInteger(pages))) {
    yield [`${own.memory_limit} bytes of memory are no whole number of pages up to ${MEMORY_MOST}`];
  }
  if (!own.context) yield ["a session of no positions"];
  const engine = modules.find((module) => module.id === "engine");
  if (engine && engine.sha256 !== own.engine) yield ["the engine to run is not the engine to fetch", "engine"];
}

function* fetchPolicy({ fetch }) {
  if (fetch.policy !== POLICY || fetch.redirects !== REDIRECTS)
    yield [`policy ${fetch.policy}, redirects ${fetch.redirects}`];
}

function* originPolicy({ fetch }) {
  if (fetch.origin !== ORIGIN) yield [`origin ${fetch.origin}; only ${ORIGIN} is fetched from`];
}

function* fetchCount({ fetch, modules }) {
  if (fetch.count !== modules.length) yield [`${fetch.count} files are announced and ${modules.length} planned`];
}

function* modelBudget({ budgets }) {
  if (budgets.model !== BUDGETS.model) yield [`${budgets.model} bytes for the model; the budget is ${BUDGETS.model}`];
}

function* sidecarBudget({ budgets }) {
  if (budgets.sidecar !== BUDGETS.sidecar || budgets.sidecars !== BUDGETS.sidecars) {
    yield [`${budgets.sidecar} and ${budgets.sidecars} bytes of text are not the budgets`];
  }
}

function* adapterBudget({ budgets }) {
  if (budgets.adapters !== BUDGETS.adapters)
    yield [`${budgets.adapters} bytes of packages; the budget is ${BUDGETS.adapters}`];
}

function* resource({ modules }) {
  const seen = new Set();
  for (const { id, class: own, path, sha256: digest } of modules) {
    const kind = kindOf(id);
    if (!kind) yield ["no part of a bundle has this name", id];
    else if (own !== kind.class) yield [`class ${own}; it is of class ${kind.class}`, id];
    else if (path !== pathOf(id, own, digest)) yield [`path ${path} does not follow from its class and digest`, id];
    if (seen.has(id) || seen.has(path)) yield ["stands twice in the plan", id];
    seen.add(id).add(path);
  }
}

function* differing({ modules }, field) {
  for (const module of modules) {
    const wanted = kindOf(module.id)?.[field];
    if (module[field] !== wanted) yield [`${field} ${module[field]}; it is ${wanted}`, module.id];
  }
}

function* dependency({ modules }) {
  const ids = modules.map((module) => module.id);
  for (const { id, depends } of modules) {
    const wanted = dependsOf(id, ids);
    if (!same(depends, wanted))
      yield [`depends on ${depends.join(", ") || "nothing"}; it has to on ${wanted.join(", ")}`, id];
  }
}

function* bytes({ modules, budgets }) {
  const most = {
    sidecar: budgets.sidecar,
    evidence: budgets.sidecar,
    engine: ENGINE_BUDGET,
    model: budgets.model,
    adapter: budgets.adapters,
  };
  for (const module of modules) {
    const limit = most[module.class];
    if (!(module.size >= 1 && module.size <= limit))
      yield [`${module.size} bytes; between 1 and ${limit} are allowed`, module.id];
  }
  const sum = (...classes) =>
    modules.filter((module) => classes.includes(module.class)).reduce((total, { size }) => total + size, 0);
  const [texts, packages] = [sum("sidecar", "evidence"), sum("adapter")];
  if (texts > budgets.sidecars) yield [`${texts} bytes of text; at most ${budgets.sidecars} are allowed`];
  if (packages > budgets.adapters) yield [`${packages} bytes of packages; at most ${budgets.adapters} are allowed`];
}

function* stack({ modules, stack: own }) {
  const found = modules.filter((module) => module.class === "adapter").map((module) => module.sha256);
  if (!same(own, found)) yield ["the stack is not the packages of the plan in their order"];
  if (new Set(found).size < found.length || found.length > MAX_ADAPTERS) {
    yield [`a package stands twice in the stack, or there are more than ${MAX_ADAPTERS}`];
  }
}

function* graph({ modules, calls, stack: own, unsmoked }) {
  const ids = modules.map((module) => module.id);
  const [promoted, smoked] = [ids.includes(`evidence-${OPTIONAL}`), ids.includes(`evidence-${BROWSER}`)];
  if (!same(ids, namesOf(own.length, promoted, smoked)))
    yield ["modules are missing, too many, or not in the order of a plan"];
  if (!same(calls, callsOf(modules))) yield ["the calls are not those of the modules, in their order"];
  if (smoked !== (unsmoked !== null)) yield ["a browser's smoke and the plan it was made of go together"];
}

function* page({ page: { build, files } }, wanted) {
  const names = files.map((file) => file.path);
  const strange = names.find((name) => !PLAIN_NAME.test(name) || GENERATED.includes(name));
  if (strange !== undefined) yield [`${JSON.stringify(strange)} is no name of a file of the page`];
  const sorted = [...new Set(names)].sort();
  if (build !== wanted || names.length === 0 || !same(names, sorted))
    yield ["the page's build is not the digest of its sorted files"];
}

/** Digest of the plan of the same bundle before a browser ran it: what a BrowserSmoke was made of. */
export async function planWithoutSmoke(plan, registry, receipt) {
  const own = `evidence-${BROWSER}`;
  const kept = plan.modules.filter((module) => module.id !== own);
  const ids = kept.map((module) => module.id);
  const calls = callsOf(kept);
  const { [own]: _, ...evidence } = receipt.evidence;
  const texts = {
    registry: canonicalBytes({ ...registry, routes: registry.routes.map((route) => ({ ...route, visible: "local" })) }),
    "assembly-receipt": canonicalBytes({
      ...receipt,
      evidence,
      browser_smoke: null,
      calls_sha256: await sha256(canonicalBytes(calls)),
    }),
  };
  const modules = [];
  for (const module of kept) {
    const text = texts[module.id];
    const digest = text ? await sha256(text) : module.sha256;
    const path = pathOf(module.id, module.class, digest);
    modules.push({
      ...module,
      sha256: digest,
      size: text?.length ?? module.size,
      path,
      depends: dependsOf(module.id, ids),
    });
  }
  return sha256(
    canonicalBytes({ ...plan, modules, calls, fetch: { ...plan.fetch, count: modules.length }, unsmoked: null }),
  );
}

/** What follows from a module's name; undefined if no module is called that. */
function kindOf(id) {
  if (Object.hasOwn(SIDECARS, id))
    return { role: SIDECARS[id][0], class: "sidecar", phase: SIDECARS[id][1], slot: null };
  if (id === "engine") return { role: id, class: id, phase: 4, slot: id };
  if (id === "model") return { role: id, class: id, phase: 5, slot: "base" };
  const role = id.replace(/^evidence-/, "");
  if (role !== id && (EVIDENCE.includes(role) || role === BROWSER))
    return { role, class: "evidence", phase: 3, slot: null };
  const [, numbered, source] = NUMBERED.exec(id) ?? [];
  if (source) return { role: source, class: "evidence", phase: 3, slot: null };
  if (numbered === "adapter") return { role: numbered, class: numbered, phase: 6, slot: id };
  return numbered && { role: numbered, class: "sidecar", phase: 2, slot: null };
}

/** What has to be verified before a module is fetched, in the order of the plan. */
function dependsOf(id, ids) {
  const { class: own } = kindOf(id) ?? {};
  if (id === "registry" || !own) return [];
  if (own === "evidence") return ["assembly-receipt"];
  if (own === "engine") return ids.filter((other) => other.startsWith("evidence-"));
  if (own === "model") return ["engine", "model-manifest"];
  if (own === "adapter") {
    const number = Number(id.split("-").at(-1));
    return ["model", `adapter-manifest-${number}`, ...(number > 1 ? [`adapter-${number - 1}`] : [])];
  }
  const manifests = ids.filter((other) => other.startsWith("adapter-manifest-"));
  if (id === "adapter-family") return ["registry", ...manifests];
  if (id !== "assembly-receipt") return ["registry"];
  return ["registry", "model-manifest", ...manifests, ...ids.filter((other) => other === "adapter-family")];
}

/** The ids of a whole plan, in order. */
function namesOf(adapters, promoted, smoked) {
  const numbers = Array.from({ length: adapters }, (_, index) => index + 1);
  return [
    "registry",
    "model-manifest",
    ...numbers.map((number) => `adapter-manifest-${number}`),
    ...(adapters ? ["adapter-family"] : []),
    "assembly-receipt",
    ...EVIDENCE.filter((role) => promoted || role !== OPTIONAL).map((role) => `evidence-${role}`),
    ...numbers.map((number) => `evidence-adapter-${number}-source`),
    ...(smoked ? [`evidence-${BROWSER}`] : []),
    "engine",
    "model",
    ...numbers.map((number) => `adapter-${number}`),
  ];
}

function callsOf(modules) {
  const calls = modules.flatMap(({ id }) => CALLS[kindOf(id)?.class]?.map((call) => [call, id]) ?? []);
  return [...calls, ["assembly.state", "assembly-receipt"]].map(([call, module], index) => ({
    order: index + 1,
    call,
    module,
  }));
}

function pathOf(id, own, digest) {
  const [folder, ending] = FOLDERS[own];
  return id === "registry" ? "registry.json" : `${folder}/${digest}.${ending}`;
}
