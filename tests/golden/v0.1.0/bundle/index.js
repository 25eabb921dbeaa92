/** Where the page begins: beside the files of its bundle, or with all of them inside it. */

import { byId } from "./dom.js";
import { Page } from "./page.js";

// A page without a plan says so like any other that it refuses.
const { PLAN } = await import("./bundle.js").catch(() => ({}));
const embedded = byId("embedded-files")?.textContent;
const ownWorker = () =>
  URL.createObjectURL(new Blob([byId("embedded-worker").textContent], { type: "text/javascript" }));
const makeWorker = embedded
  ? () => new Worker(ownWorker())
  : () => new Worker(new URL("worker.js", import.meta.url), { type: "module" });
const where = embedded ? { embedded } : { base: new URL(".", import.meta.url).href };
new Page(makeWorker, { plan: PLAN, ...where }).load();
