/** The page as it lies in a bundle's folder. */

import { PLAN } from "./bundle.js";
import { Page } from "./page.js";

const makeWorker = () => new Worker(new URL("worker.js", import.meta.url), { type: "module" });
new Page(makeWorker, { plan: PLAN, base: new URL(".", import.meta.url).href }).load();
