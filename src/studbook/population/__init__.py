"""Where recipes come from when nobody writes them, who has children together, and who stands where.

`genomes` is what may be set, `loop` what every search does, and `random_search`, `cmaes` and `m2n2` are three ways to
propose, on development items alone. `pools` draws parents, `dominance` ranks under noise, `novelty` tells who is unlike
the others. Nothing here touches a weight: a proposal is an operator record, and somebody else runs it.
"""

from __future__ import annotations

from studbook.population.cmaes import CmaSearch, library
from studbook.population.dominance import Scored, Standing, archive_of, dominates, standings
from studbook.population.genomes import Draws, Genome, Kind, make_space, recipe, soup
from studbook.population.loop import Method, Objective, Outcome, Proposal, Result, Score, Search, Task
from studbook.population.m2n2 import NaturalNiches
from studbook.population.novelty import cells, elites, errors_of, nearest, novelty_ppm
from studbook.population.pools import Draw, PoolMethod, Ready, draw_parents
from studbook.population.random_search import RandomSearch

__all__ = [
    "CmaSearch",
    "Draw",
    "Draws",
    "Genome",
    "Kind",
    "Method",
    "NaturalNiches",
    "Objective",
    "Outcome",
    "PoolMethod",
    "Proposal",
    "RandomSearch",
    "Ready",
    "Result",
    "Score",
    "Scored",
    "Search",
    "Standing",
    "Task",
    "archive_of",
    "cells",
    "dominates",
    "draw_parents",
    "elites",
    "errors_of",
    "library",
    "make_space",
    "nearest",
    "novelty_ppm",
    "recipe",
    "soup",
    "standings",
]
