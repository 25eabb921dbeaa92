"""Smoke, suites, scorecards: what an artifact does, measured on frozen items by workers that hold no keys.

* `suites` reads, floor-tests (`floor`) and freezes; `items` are its lines, `templates` and `perturb` write new ones.
* `scorers` turns answers into verdicts by kinds, one file each below `scoring`.
* `generate_worker` sees prompts only, `score_worker` prompts and answers, `code_worker` a written program (`programs`)
  and calls of it, `drift_worker` two models and anchors; `scorecards` and `drift` start them and write down what they said.
* `contamination` compares training rows with items; `costs` counts from shapes and tokens, by no clock.
"""

from __future__ import annotations
