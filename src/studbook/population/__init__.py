"""Where recipes come from when nobody writes them: searches over declared spaces, on development items alone.

`genomes` is what may be set, `loop` what every search does, and `random_search`, `cmaes` and `m2n2` are three ways to
propose. Nothing here touches a weight: a proposal is an operator record, and somebody else runs it.
"""

from __future__ import annotations

from studbook.population.cmaes import CmaSearch, library
from studbook.population.genomes import Draws, Genome, Kind, make_space, recipe, soup
from studbook.population.loop import Method, Objective, Outcome, Proposal, Result, Score, Search, Task
from studbook.population.m2n2 import NaturalNiches
from studbook.population.random_search import RandomSearch

__all__ = [
    "CmaSearch",
    "Draws",
    "Genome",
    "Kind",
    "Method",
    "NaturalNiches",
    "Objective",
    "Outcome",
    "Proposal",
    "RandomSearch",
    "Result",
    "Score",
    "Search",
    "Task",
    "library",
    "make_space",
    "recipe",
    "soup",
]
