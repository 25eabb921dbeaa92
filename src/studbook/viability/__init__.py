"""Is a candidate fit to replace the champion? Pure functions over records; nothing here reads a file or a weight.

The rules, in the order the modules apply them:

1. `gates`: a candidate is what it says it is, was bred as declared, runs, and stays within the policy; else it is
   quarantined (integrity) or archived. `evidence` says whether a scorecard can be believed at all.
2. `comparisons`: it is not inferior to the champion on any protected suite, calibration included.
3. `screening` picks the finalists on development items alone; they have to be superior on the target failure cluster
   (exact McNemar, Holm over the finalists) and better than every parent.
4. `worth`: the lower bound of its net utility exceeds the switching threshold, and every reserve of `reserve` is kept
   with the way back. Doing nothing is a candidate with gain 0 and cost 0, and wins every other round; `situation` says
   what the ledger has to say, such as that the champion was replaced only yesterday.
5. `confirmation`: the single winner is confirmed once on sealed suites; `archive` keeps everybody else with reasons.

`decide` composes 1 to 4; `actions` is what becomes of whom, `standings` holds what was found out and `explanation` says
it in words with numbers.
"""

from __future__ import annotations

from studbook.viability.confirmation import archive, confirm
from studbook.viability.contenders import Baseline, Contender, check_judges
from studbook.viability.costs import BYTES, DECODED_BYTES, MULTIPLY_ADDS
from studbook.viability.decision import decide
from studbook.viability.gates import gate
from studbook.viability.reserve import checked
from studbook.viability.screening import screen
from studbook.viability.situation import ALONE, Former, Situation, held, is_wait, waits_by_time

__all__ = [
    "ALONE",
    "BYTES",
    "DECODED_BYTES",
    "MULTIPLY_ADDS",
    "Baseline",
    "Contender",
    "Former",
    "Situation",
    "archive",
    "check_judges",
    "checked",
    "confirm",
    "decide",
    "gate",
    "held",
    "is_wait",
    "screen",
    "waits_by_time",
]
