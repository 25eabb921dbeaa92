/**
 * The one gate of every check that the page itself makes.
 *
 * What the engine refuses does not pass through here: a page whose gate stands open still bounces every file that the
 * engine bounces.
 */

/** A refusal: a stable reason, what was found, and which module it speaks of. */
export class Refusal extends Error {
  /**
   * @param {string} reason Stable code, such as "fetch.checksum".
   * @param {string} detail In words, with the numbers.
   * @param {string | null} module Id of the module in the plan.
   * @param {Error | undefined} cause What the engine said.
   */
  constructor(reason, detail, module = null, cause = undefined) {
    super(detail, { cause });
    this.reason = reason;
    this.module = module;
  }
}

/** Refuse unless something holds. */
export function demand(holds, reason, detail, module = null) {
  if (!holds) throw new Refusal(reason, typeof detail === "function" ? detail() : detail, module);
}
