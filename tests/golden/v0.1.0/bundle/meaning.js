/** What the evidence says, held against the model it lies beside: checksums may be right and records wrong. */

import { canonicalBytes, canonicalText, readCanonical, same } from "./canonical.js";
import { demand } from "./checks.js";
import { checkInclusion } from "./ledger.js";
import { planWithoutSmoke } from "./plan.js";
import { faultInLine } from "./receipts.js";
import { sha256 } from "./sources.js";

const BROWSER = "browser-smoke";
const QUANTISE = "quantise/1";
const KINDS = {
  ledger: ["ledger-evidence/1"],
  review: ["population-review/1"],
  recipe: ["parent-pool/1"],
  "operator-receipt": ["operator-receipt/1"],
  candidate: ["candidate-manifest/1"],
  template: ["lineage-template/1"],
  promotion: ["promotion-template/1"],
  admission: ["admission-record/1"],
  "promotion-champion": ["promotion-template/1"],
  move: ["release-record/1", "champion-promotion/1", "rollback-record/1"],
  smoke: ["runtime-smoke/1"],
  evaluation: ["scorecard/1"],
  decision: ["viability-decision/1"],
  [BROWSER]: ["browser-smoke/1"],
};

/** The kinds of record that evidence of a role may be. */
export const kindsOf = (role) => (Object.hasOwn(KINDS, role) ? KINDS[role] : ["source-manifest/1"]);

/**
 * Hold all evidence against the model.
 *
 * @param {object} run The assembly: plan, registry, receipt, manifest, manifests, family.
 * @param {Record<string, object>} records Role -> record.
 * @param {Record<string, string>} digests Role -> digest of it, in the order of the plan.
 */
export async function checkEvidence(run, records, digests) {
  const of = {
    plan: run.plan,
    registry: run.registry,
    receipt: run.receipt,
    model: run.manifest,
    adapters: run.manifests,
    family: run.family,
    records,
    digests,
  };
  checkMeaning(of);
  await checkCase(of);
  await checkLedger(of);
  await checkBrowser(of);
}

function checkMeaning(of) {
  for (const [role, facts] of Object.entries(FACTS)) {
    if (!Object.hasOwn(of.records, role)) continue;
    for (const [field, found, wanted] of facts(of.records[role], of)) {
      demand(
        same(found, wanted),
        "evidence.meaning",
        () => `${field} is ${told(found)}; it has to be ${told(wanted)}`,
        `evidence-${role}`,
      );
    }
  }
  for (const adapter of of.adapters) {
    const role = `adapter-${adapter.order}-source`;
    for (const [field, found, wanted] of source(of.records[role], adapter, of.digests[role])) {
      demand(same(found, wanted), "evidence.meaning", `${field} is not that of the package`, `evidence-${role}`);
    }
  }
}

async function checkCase({ records: { evaluation: card }, plan }) {
  const refuse = (holds, detail) => demand(holds, "evidence.case", detail, "evidence-evaluation");
  refuse(
    card.results.every((result) => result.items_before === result.items_after),
    "items of a suite changed while it was scored",
  );
  const pairs = card.results.map((result) => [result.suite, result.items_before]).sort();
  refuse(
    (await sha256(canonicalBytes(pairs))) === plan.eval_case,
    "was scored on other suites or items than plan and receipt say",
  );
}

/** A BrowserSmoke is made of the bundle, so it enters the ledger after the checkpoint; the receipt binds it alone. */
async function checkLedger({ records: { ledger }, receipt, digests }) {
  const refuse = (holds, detail) => demand(holds, "evidence.ledger", detail, "evidence-ledger");
  const { origin, size, root } = ledger.checkpoint;
  const signed = ledger.note.startsWith(`${origin}\n${size}\n${base64OfHex(root)}\n`);
  refuse(signed && same(ledger.checkpoint, receipt.checkpoint), "the checkpoint is not the one that the receipt binds");
  const wanted = Object.entries(digests).filter(([role]) => role !== "ledger" && role !== BROWSER);
  const found = ledger.entries.map((entry) => [entry.role, entry.record]);
  refuse(same(found, wanted), "does not speak of exactly the records of the evidence, in their order");
  for (const { role, record, index, line, path } of ledger.entries) {
    refuse(
      await checkInclusion(line, index, size, path, root),
      `${role}: the path does not prove that the entry is in the tree`,
    );
    refuse(same(entered(line), { record, index }), `the line of ${role} is another record's`);
  }
}

async function checkBrowser({ records: { [BROWSER]: smoke }, plan, registry, receipt, model, family }) {
  if (!smoke) return;
  const unsmoked = await planWithoutSmoke(plan, registry, receipt);
  const facts = {
    passed: [smoke.passed, true],
    plan: [
      [smoke.plan, plan.unsmoked],
      [unsmoked, unsmoked],
    ],
    page_build: [smoke.page_build, plan.page.build],
    engine: [smoke.engine, plan.execution.engine],
    model: [smoke.model, model.artifact.sha256],
    logits: [smoke.logits, (family ?? model).logits],
    state_sha256: [smoke.state_sha256, receipt.state_sha256],
    requests: [smoke.requests >= plan.fetch.count, true],
  };
  for (const [field, [found, wanted]] of Object.entries(facts)) {
    demand(same(found, wanted), "evidence.browser", `${field} is not that of this bundle`, `evidence-${BROWSER}`);
  }
}

const FACTS = {
  *review(own, { model }) {
    yield ["residents: the model", own.residents.some((resident) => resident.artifact === model.artifact.sha256), true];
  },

  *recipe(own, { model }) {
    const named = new Set([own.base, ...own.members.map((member) => member.artifact)]);
    const sources = model.lineage.filter((node) => node.kind === "source");
    const whole = sources.length > 0 && sources.every((node) => named.has(node.digest));
    const line = named.has(model.lineage[0]?.digest) || whole;
    yield ["members: the model's line", line, true];
  },

  *"operator-receipt"(own, { model, digests, records: { template: declared } }) {
    yield ["output", own.output, model.artifact];
    yield ["template", own.template, digests.template];
    yield ["operator", own.operator, declared.operator];
    yield ["numeric_contract", own.numeric_contract, declared.numeric_contract];
    const parents = [declared.base, ...declared.parents];
    yield ["inputs", own.inputs.map(({ before, after }) => [before, after]), parents.map((digest) => [digest, digest])];
  },

  *candidate(own, { model, digests }) {
    yield ["artifact", own.artifact, model.artifact];
    yield ["purpose", own.purpose, "candidate"];
    yield ["template", own.template, digests.template];
    yield ["receipt", own.receipt, digests["operator-receipt"]];
    yield ["checks", own.checks.every((check) => check.passed), true];
    for (const field of ["name", "licence", "fallback", "unsupported", "trade_offs"]) yield [field, model[field], own[field]];
  },

  *template(own, { model, digests }) {
    const { expected } = own;
    yield ["purpose", own.purpose, "candidate"];
    yield ["expected.size_bytes", expected.size_bytes, model.artifact.size];
    yield ["expected.tokenizer_sha256", expected.tokenizer_sha256, model.tokenizer_sha256];
    yield ["expected.layout_sha256", expected.layout_sha256, model.layout_sha256];
    yield ["expected.label", expected.label, model.storage];
    const quantised = own.operator.operator === QUANTISE;
    // The base of a template is what its change is measured from; a build is made of its one parent.
    yield ["base of the build", model.base, quantised ? (own.parents[0] ?? null) : null];
    yield ["receipt of the build", model.quantise_receipt, quantised ? digests["operator-receipt"] : null];
    const first = model.lineage[0];
    yield ["lineage", first?.digest ?? null, model.artifact.sha256];
    yield ["lineage: parents", first?.parents ?? [], [...new Set([own.base, ...own.parents])]];
    yield ["lineage: operator", first?.operator ?? null, own.operator.operator ?? null];
    yield ["lineage: name", first?.name ?? null, model.name];
    yield ["lineage: fault", faultInLine(model.lineage), null];
  },

  *promotion(own, of) {
    yield ["stage", own.stage, "shadow"];
    yield* passed(own, of);
  },

  *admission(own, { model, digests }) {
    yield ["artifact", own.artifact, model.artifact.sha256];
    yield ["template", own.template, digests.promotion];
    yield ["claim", model.claim, own.claim];
  },

  *"promotion-champion"(own, of) {
    yield ["stage", own.stage, "champion"];
    yield* passed(own, of);
  },

  *move(own, { model, digests, receipt }) {
    const promotion = digests["promotion-champion"] ?? null;
    yield ["artifact", own.artifact, model.artifact.sha256];
    if (own.kind === "champion-promotion/1") {
      yield ["channel", "champion", receipt.channel];
      yield ["basis", own.basis, "promotion"];
      yield ["evidence", own.evidence, promotion];
      return;
    }
    yield ["channel", own.channel, receipt.channel];
    yield ["promotion-champion", promotion, null];
    if (own.kind === "release-record/1") yield ["admission", own.admission, digests.admission];
  },

  *smoke(own, { plan, model }) {
    yield ["engine", own.engine, plan.execution.engine];
    yield ["logits", own.logits, model.logits];
    yield ["artifact", own.artifact, model.artifact.sha256];
    yield ["passed", [own.passed, own.finite, own.deterministic], [true, true, true]];
  },

  *evaluation(own, { model }) {
    yield ["artifact", own.artifact, model.artifact.sha256];
    yield ["role", model.role, own.role];
    const again = own.results
      .filter(({ correct }) => correct)
      .map(({ cluster, dimension, correct }) => [
        cluster,
        dimension,
        correct.replaceAll("0", "").length,
        correct.length,
      ]);
    yield [
      "scores shown",
      model.scores.map(({ label, dimension, right, items }) => [label, dimension, right, items]),
      again,
    ];
    yield ["calls", own.results.map((one) => one.actual_calls), own.results.map((one) => one.expected_calls)];
  },

  *decision(own, { model, digests }) {
    const cited = own.standings
      .filter((standing) => standing.artifact === own.chosen)
      .flatMap(({ development, selection }) => [development, selection]);
    yield ["action", own.action, "promote-to-shadow"];
    yield ["chosen", own.chosen, model.artifact.sha256];
    yield ["standings: scorecard", cited.includes(digests.evaluation), true];
    const chosen = own.standings.find(
      ({ artifact, manifest }) => artifact === own.chosen && manifest === digests.candidate,
    );
    yield ["standings: manifest", chosen !== undefined, true];
    if (!chosen) return;
    yield ["standings: action", chosen.action, own.action];
    const shown = model.scores.map((score) => score.champion_right);
    yield ["champion shown", championsRight(chosen, own.champion, model, digests.evaluation), shown];
  },
};

/** The champion's right answers, which follow from the paired comparisons; what was not compared so, as it is shown. */
function championsRight({ comparisons }, champion, { scores }, card) {
  const paired = new Map(
    comparisons
      .filter(({ test, against }) => test === "non-inferiority" && against === champion)
      .filter(({ scorecards }) => scorecards.includes(card))
      .map(({ on, items, wins, losses }) => [canonicalText([on, items]), losses - wins]),
  );
  return scores.map(({ label, dimension, right, items, champion_right: shown }) => {
    const more = dimension === "task" ? paired.get(canonicalText([label, items])) : undefined;
    return more === undefined ? shown : right + more;
  });
}

function* passed(own, { model, digests }) {
  yield ["artifact", own.artifact, model.artifact.sha256];
  yield ["open gates", own.gates.filter((gate) => gate.status !== "passed").map((gate) => gate.name), []];
  yield ["gates", own.gates.length > 0, true];
  yield ["manifest", own.manifest, digests.candidate];
  yield ["decision", own.decision, digests.decision];
}

function* source(record, adapter, digest) {
  const own = record.source;
  yield ["form", own.form, "adapter"];
  for (const [field, wanted] of [
    ["adapter_sha256", adapter.artifact.sha256],
    ["package", adapter.package],
    ["base", adapter.base],
    ["tokenizer_sha256", adapter.tokenizer_sha256],
  ]) {
    yield [field, own[field], wanted];
  }
  yield ["source", adapter.source, digest];
  yield ["unsupported", adapter.unsupported, record.unsupported];
}

/** Record and position of the entry that a signed line of the ledger is about; null if it is no such line. */
function entered(line) {
  try {
    const { payload } = readCanonical(new TextEncoder().encode(line), "");
    const bytes = Uint8Array.from(atob(payload), (character) => character.charCodeAt(0));
    // The browser reads base64 with white space and without its end, too.
    if (btoa(atob(payload)) !== payload) return null;
    const { record, sequence: index } = readCanonical(bytes, "").predicate;
    return { record: record ?? null, index: index ?? null };
  } catch {
    return null;
  }
}

const base64OfHex = (text) => btoa(String.fromCharCode(...text.match(/../g).map((pair) => parseInt(pair, 16))));

function told(value) {
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return text.length <= 80 ? text : `${text.slice(0, 77)}...`;
}
