// A worker with an engine that has filled its memory.

import { Engine } from "./engine.js";

addEventListener("message", async ({ data: [wasm, size] }) => {
  self.engine = await Engine.open(wasm, 2 ** 30);
  const block = self.engine.take(size);
  self.engine.view(block, size).fill(7);
  postMessage(self.engine.memory.buffer.byteLength);
});
