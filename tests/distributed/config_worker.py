"""One of two processes that train as a config says; called with a method, a folder, and what is said of the run."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from pathlib import Path

import torch

from tests.distributed.launched import shard_on_cpu

METHOD, FOLDER, *OPTIONS = sys.argv[1:]

warnings.simplefilter("ignore")
logging.disable(logging.WARNING)
torch.set_num_threads(1)
shard_on_cpu()

from transformers import TrainerCallback  # noqa: E402

from rlaif_sdk.training.methods import load_run, train  # noqa: E402

run = load_run(METHOD, Path(FOLDER, "run.yaml"), overrides=[option for option in OPTIONS if option != "resume"])
result = train(METHOD, run, display=TrainerCallback(), resume="resume" in OPTIONS)
names = ("loss", "kl", "reward", "grad_norm", "rewards/margins")
answer = {"history": [{name: entry[name] for name in names if name in entry} for entry in result.history]}
if METHOD == "ppo":
    answer["answers"] = [list(said.answers.completions) for said in (result.before, result.after)]
else:
    answer["after"] = dict(result.after)
Path(FOLDER, f"rank{os.environ['RANK']}.json").write_text(json.dumps(answer))
torch.distributed.destroy_process_group()
