"""One of two processes that share what the first makes; called with a scenario and a folder."""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import timedelta
from pathlib import Path

from accelerate import PartialState

from rlaif_sdk.exceptions import TrainingError
from rlaif_sdk.training.ranks import shared

SCENARIO, FOLDER, RANK = sys.argv[1], Path(sys.argv[2]), os.environ["RANK"]
LIMIT = 6.0
"""Seconds that a collective may take."""


def made() -> list[str]:
    if SCENARIO == "failing":
        raise ValueError("the judge cannot be reached")
    time.sleep(1.5 * LIMIT if SCENARIO == "slow" else 0)
    return ["an answer"]


PartialState(cpu=True, timeout=timedelta(seconds=LIMIT))
try:
    answer = {"shared": [shared(made), shared(made)]}
except (TrainingError, ValueError) as error:
    answer = {"error": f"{type(error).__name__}: {error}"}
(FOLDER / f"rank{RANK}.json").write_text(json.dumps(answer))
if "shared" in answer:
    PartialState().destroy_process_group()
