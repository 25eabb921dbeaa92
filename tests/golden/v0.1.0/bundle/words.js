/** What the page says: the steps in order, and every reason of a refusal in a sentence. */

/** Step -> title and what is looked at in it. */
export const STEPS = [
  ["plan", "Plan", "Its digest, against the one that this page was made with."],
  ["policy", "Policy", "Which files may be fetched, from where, and how many bytes."],
  ["registry", "Registry", "The one route it has, against the plan."],
  ["receipts", "Receipts", "Manifests and receipts, against the plan and each other."],
  ["evidence", "Evidence", "Every record: its checksum, and that it speaks of this model."],
  ["engine", "Engine", "The planned engine, in a memory of its own."],
  ["model", "Model", "Its checksum, and every rule of its format."],
  ["smoke", "Logits", "What the engine computes, bit for bit as the lab recorded it."],
  ["adapters", "Adapters", "Each checked, applied in order, every fused tensor compared."],
  ["ready", "Ready", "The model may answer once everything above is verified."],
];

const FETCH = {
  "fetch.missing": "A planned file is not there.",
  "fetch.bytes": "A file is longer or shorter than planned.",
  "fetch.checksum": "A file is not the one that was planned: its checksum differs.",
};

const REASONS = {
  ...FETCH,
  "page.insecure":
    "Browsers check digests only on pages from https, from localhost or from disk. Serve this folder that way.",
  "page.failed": "Something went wrong in the page itself. Reload it; if that does not help, report what stands below.",
  "plan.digest-missing": "This page holds no digest of a plan, so nothing can be verified.",
  "plan.size": "The plan is too large to be one.",
  "plan.digest": "The plan is not the one that this page was made with.",
  "plan.form": "The plan is not written as plans are.",
  "plan.profile": "The plan is for another kind of page.",
  "plan.execution": "The plan asks for an engine that this page does not run.",
  "plan.fetch-policy": "The plan would let the page fetch more than what is planned.",
  "plan.origin-policy": "The plan would let the page fetch from elsewhere.",
  "plan.fetch-count": "The plan does not count its own files right.",
  "plan.model-budget": "The plan's budget for the model is not the one that is allowed.",
  "plan.sidecar-budget": "The plan's budget for text files is not the one that is allowed.",
  "plan.adapter-budget": "The plan's budget for adapters is not the one that is allowed.",
  "plan.resource": "A planned file lies where it should not, or stands in the plan twice.",
  "plan.role": "A file has a role that it cannot have, or a role is missing.",
  "plan.slot": "A file takes a place in the engine that is not its own.",
  "plan.phase": "A file is planned for the wrong phase.",
  "plan.dependency": "A file does not wait for what has to be verified before it.",
  "plan.bytes": "A file is empty or over its budget.",
  "plan.stack": "The stack of adapters is not that of the planned files.",
  "plan.graph": "The planned files and calls are not those of a bundle, or not in their order.",
  "plan.page": "The plan names other files of the page than it was made with.",
  "registry.form": "The registry is not written as registries are.",
  "registry.budget": "The registry's budgets are not those of the plan.",
  "registry.route": "The registry routes to something that is not planned.",
  "registry.family": "The registry's adapters are not those of the plan.",
  "manifest.form": "A manifest is not written as manifests are.",
  "manifest.model": "The manifest describes another model.",
  "manifest.runtime": "The manifest asks for another engine, memory or context than the plan.",
  "adapter.manifest": "An adapter's manifest does not fit the plan, the model or the other adapters.",
  "family.form": "The family receipt is not written as such receipts are.",
  "family.stack": "The family receipt was made for another stack.",
  "receipt.form": "The assembly receipt is not written as such receipts are.",
  "receipt.binding": "The assembly receipt binds other files than the planned ones.",
  "receipt.calls": "The assembly receipt was made for other calls.",
  "receipt.state": "The assembly receipt was made for another model or stack.",
  "receipt.case": "The assembly receipt was made for another evaluation.",
  "evidence.file": "A file of evidence is missing, or is not the one that was planned.",
  "evidence.form": "A file of evidence is not the kind of record that it has to be.",
  "evidence.meaning": "A record is intact but does not say what it would have to say.",
  "evidence.case": "The scorecard is of another evaluation than the plan says.",
  "evidence.ledger": "The ledger's proof does not hold.",
  "evidence.browser": "The record of a browser's run is of another bundle.",
  "engine.abi": "The engine does not speak this page's language, or this browser cannot run it.",
  "engine.memory": "The engine has no memory left within the planned limit.",
  "engine.context": "The text is longer than the model's context.",
  "engine.non-finite": "The model computed something that is not a number.",
  "model.facts": "The model is not what its manifest says.",
  "smoke.logits": "The engine computes other logits than the lab recorded.",
  "adapter.artifact": "An adapter is missing, or is not the one that was planned.",
  "adapter.validation": "The engine refuses an adapter.",
  "adapter.facts": "An adapter is not what its manifest says.",
  "adapter.fused": "An adapter changes the model otherwise than its manifest says.",
  "adapter.state": "The assembly is in another state than its receipts say.",
  "smoke.stack": "With the adapters on, the engine computes other logits than the lab recorded.",
};

const FAMILIES = [
  ["slm.", "The model breaks a rule of its format; the engine refuses it."],
  ["tokenizer.", "The model's tokenizer, or a text, breaks a rule; the engine refuses it."],
  ["adapter.", "The adapter breaks a rule of its format, or was made for another model; the engine refuses it."],
];

/** A sentence for a reason. */
export function inSentence(reason) {
  const family = FAMILIES.find(([beginning]) => reason.startsWith(beginning));
  return REASONS[reason] ?? family?.[1] ?? "Refused.";
}

/** Every reason that has a sentence of its own. */
export const KNOWN_REASONS = Object.keys(REASONS);
