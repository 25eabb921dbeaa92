"""Smoke, suites, scorecards: what an artifact does, measured on frozen items by workers that hold no keys.

`suites` reads, floor-tests and freezes; `scorers` turns answers into verdicts; the two workers run the weights, one
with prompts only and one with the answers; `scorecards` starts them and writes down what they said; `contamination`
compares training rows with items.
"""

from __future__ import annotations
