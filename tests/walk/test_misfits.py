"""A round on parents that do not fit is refused before any work, with the first difference and what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
from lab_fixtures import BLEND, CLUSTER, PARENTS, PERSON, Place, founder, problems, run_cli

from studbook.errors import OutOfOrder, OutsideAllowlist, OverBudget, ParentsDoNotFit, StudbookError
from studbook.lab.rounds import run_round
from studbook.models.bpe import BpeTokenizer
from studbook.models.shape import SlmShape
from studbook.models.slm import parse_slm, read_slm
from studbook.models.slm_writer import write_slm
from studbook.models.trained_source import export_trained_source
from studbook.records import CandidateManifest, FailureCluster, LineageTemplate, OperatorReceipt, Scorecard

BRED = (FailureCluster, LineageTemplate, OperatorReceipt, CandidateManifest, Scorecard)
