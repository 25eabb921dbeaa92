// The engine on a bare page: load, feed the prompt, write greedily; then feed whole rows with all logits.
const begun = performance.now();

async function measure() {
  const [wasm, model, job] = await Promise.all([
    fetch("engine.wasm").then((r) => r.arrayBuffer()),
    fetch("model-f32.slm").then((r) => r.arrayBuffer()),
    fetch("job.json").then((r) => r.json()),
  ]);
  const memory = new WebAssembly.Memory({ initial: 64, maximum: 16384 });
  const { instance } = await WebAssembly.instantiate(wasm, { env: { memory } });
  const e = instance.exports;
  const reason = () => {
    const bytes = new Uint8Array(memory.buffer, e.sb_reason());
    return new TextDecoder().decode(bytes.slice(0, bytes.indexOf(0)));
  };
  const done = (status) => {
    if (status < 0) throw new Error(reason());
    return status;
  };
  const put = (bytes) => {
    const at = e.sb_alloc(bytes.byteLength);
    new Uint8Array(memory.buffer, at, bytes.byteLength).set(new Uint8Array(bytes));
    return at;
  };
  done(e.sb_model_load(put(model), model.byteLength));
  const start = performance.now() - begun;
  const vocab = 260;
  const longest = Math.max(job.rows[0].length, job.prompt.length);
  const ids = e.sb_alloc(4 * longest);
  const logits = e.sb_alloc(4 * vocab * longest);
  const state = e.sb_alloc(8);
  const session = done(e.sb_session_open(job.context));
  const feed = (tokens, all) => {
    new Uint32Array(memory.buffer, ids, tokens.length).set(tokens);
    done(e.sb_feed(session, ids, tokens.length, logits, all));
  };
  let written, decode = Infinity, score = Infinity;
  for (let turn = 0; turn <= job.repeats; turn++) {  // the first one is not counted
    let at = performance.now();
    written = [];
    e.sb_session_reset(session);
    feed(job.prompt, 0);
    for (let n = 0; n < job.new; n++) {
      written.push(done(e.sb_pick(logits, 0, 1, 1, state)));
      if (n + 1 < job.new) feed(written.slice(-1), 0);
    }
    if (turn) decode = Math.min(decode, (performance.now() - at) / 1000);
    at = performance.now();
    for (const row of job.rows) {
      e.sb_session_reset(session);
      feed(row, 1);
    }
    if (turn) score = Math.min(score, (performance.now() - at) / 1000);
  }
  const fed = job.rows.reduce((sum, row) => sum + row.length, 0);
  return { start: [start / 1000, 0], decode: [null, decode], score: [null, score], fed, ids: written,
           peak_mib: memory.buffer.byteLength / 2 ** 20 };
}

window.measured = await measure().catch((error) => ({ error: String(error) }));
