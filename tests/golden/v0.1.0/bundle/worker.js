/** Everything that touches bytes: verification, the engine, writing. The page only shows what is told here. */

import { canonicalBytes } from "./canonical.js";
import { EOS } from "./engine.js";
import { EmbeddedFiles, FetchedFiles, sha256 } from "./sources.js";
import { verify } from "./verify.js";

// How long the model writes before messages are looked at: short enough to stop at once, long enough to cost nothing.
const SLICE_MS = 16;
// Prompts are fed in blocks, between which messages are looked at.
const BLOCK = 32;
// Longest run of ids that may still become one character.
const UNFINISHED = 4;

const channel = new MessageChannel();
const breathe = () =>
  new Promise((resolve) => {
    channel.port1.onmessage = resolve;
    channel.port2.postMessage(null);
  });
const tell = (message) => postMessage(message);

let assembly = null;
let stopped = false;
let queue = Promise.resolve();

addEventListener("message", ({ data }) => {
  if (data.ask === "stop") stopped = true;
  else queue = queue.then(() => ANSWERS[data.ask](data));
});

const ANSWERS = {
  async verify({ plan, base, embedded }) {
    const files = embedded ? new EmbeddedFiles(embedded) : new FetchedFiles(base);
    assembly = await verify(files, plan, tell);
    if (!assembly) return;
    assembly.written = { kv_length: 0, tokens: 0, tokens_per_second: 0 };
    await diagnose();
    tell({ tell: "ready", count: assembly.count });
  },

  async stack({ count }) {
    try {
      assembly.restack(count);
      assembly.written.kv_length = 0;
      await diagnose();
      tell({ tell: "stacked", count });
    } catch (error) {
      unable("stack", error);
    }
  },

  async generate({ prompt, sampling, most }) {
    stopped = false;
    try {
      const summary = await write(assembly.engine, prompt, sampling, most);
      assembly.written = {
        kv_length: assembly.engine.length(),
        tokens: summary.tokens,
        tokens_per_second: summary.tokens_per_second,
      };
      await diagnose();
      tell({ tell: "written", ...summary });
    } catch (error) {
      unable("generate", error);
    }
  },
};

function unable(asked, error) {
  const reason = error.reason ?? "page.failed";
  tell({ tell: "unable", asked, reason, detail: error.message, count: assembly.count });
}

/** Write on after a prompt until the end of the text, the limit, the context's end, or until it is stopped. */
async function write(engine, prompt, { seed, ...sampling }, most) {
  const ids = engine.encode(prompt);
  const { context } = assembly.plan.execution;
  engine.begin(context, BigInt(seed));
  for (let at = 0; at < ids.length && !stopped; at += BLOCK) {
    engine.feed(ids.slice(at, at + BLOCK));
    await breathe();
  }
  const text = new Streamed(engine);
  const limit = Math.min(most, context - ids.length + 1);
  const start = performance.now();
  let [tokens, ended, waited, told] = [0, limit < most ? "the context is full" : "the limit was reached", 0, start];
  while (tokens < limit) {
    if (stopped) {
      ended = "stopped";
      break;
    }
    const id = engine.pick(sampling);
    tokens += 1;
    if (id === EOS) {
      ended = "the model ended its text";
      break;
    }
    text.push(id);
    if (tokens < limit) engine.feed([id]);
    if (performance.now() - told > SLICE_MS) {
      text.flush();
      const pause = performance.now();
      await breathe();
      told = performance.now();
      waited += told - pause;
    }
  }
  const seconds = (performance.now() - start - waited) / 1000;
  text.end();
  return { tokens, tokens_per_second: tokens / Math.max(seconds, 1e-6), ended };
}

/** Text that is told as soon as its bytes are whole characters. */
class Streamed {
  constructor(engine) {
    this.engine = engine;
    this.ids = [];
    this.text = "";
  }

  push(id) {
    this.ids.push(id);
    const text = this.engine.decode(this.ids);
    if (text !== null) {
      this.text += text;
      this.ids = [];
    } else if (this.ids.length === UNFINISHED) this.#giveUpOne();
  }

  flush() {
    if (this.text) tell({ tell: "token", text: this.text });
    this.text = "";
  }

  end() {
    while (this.ids.length) this.#giveUpOne();
    this.flush();
  }

  #giveUpOne() {
    const [, ...rest] = this.ids;
    this.text += "\ufffd";
    this.ids = [];
    for (const id of rest) this.push(id);
  }
}

/** What is in force, as it can be exported and computed again. */
async function diagnose() {
  const { engine, plan, manifest, calls, written } = assembly;
  const { applied, fused, state_sha256 } = engine.stack();
  const diagnostics = {
    kind: "bundle-diagnostics/1",
    plan: assembly.digest,
    page_build: plan.page.build,
    browser: navigator.userAgent,
    engine: plan.execution.engine,
    model: manifest.artifact.sha256,
    quantisation: manifest.storage,
    applied,
    fused,
    state_sha256,
    logits: assembly.logits(),
    calls,
    calls_sha256: await sha256(canonicalBytes(plan.calls)),
    ...written,
  };
  tell({ tell: "diagnosed", diagnostics });
}
