// The peer on a bare page: its own worker, one thread, the processor only; its own clock where it tells one.
import { Wllama, LoggerWithoutDebug } from "./wllama.js";

const begun = performance.now();

async function measure() {
  const [model, job] = await Promise.all([
    fetch("model.gguf").then((r) => r.blob()),
    fetch("job.json").then((r) => r.json()),
  ]);
  const here = new URL("wllama.wasm", location.href).href;
  const peer = new Wllama({ default: here, "single-thread/wllama.wasm": here }, { logger: LoggerWithoutDebug });
  await peer.loadModel([model], { n_ctx: job.context, n_threads: 1, n_gpu_layers: 0, n_batch: 512, n_parallel: 1 });
  const start = performance.now() - begun;
  const ask = (prompt, count) =>
    peer.createCompletion({ prompt, max_tokens: count, temperature: 0, top_k: 1, ignore_eos: true, cache_prompt: false });
  let written, decode = Infinity, score = Infinity, fed;
  for (let turn = 0; turn <= job.repeats; turn++) {  // the first one is not counted
    written = await ask(job.texts[0], job.new);
    if (turn) decode = Math.min(decode, written.timings.predicted_ms / 1000);
    let seconds = 0;
    fed = 0;
    for (const row of job.texts.slice(1)) {
      const { timings } = await ask(row, 1);
      fed += timings.prompt_n;
      seconds += timings.prompt_ms / 1000;
    }
    if (turn) score = Math.min(score, seconds);
  }
  // Every token of this model is one character.
  const ids = [...written.choices[0].text].map((character) => character.codePointAt(0));
  return { start: [start / 1000, 0], decode: [null, decode], score: [null, score], fed, ids, peak_mib: null };
}

window.measured = await measure().catch((error) => ({ error: `${error} ${error.stack}` }));
