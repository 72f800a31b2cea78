"""The environment that ``accelerate launch`` gives its processes, of a config file, and weights in parts on a CPU."""

from __future__ import annotations

import os
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples" / "accelerate"


def environment(config: str) -> dict[str, str]:
    """What a file of ``examples/accelerate`` sets, less the address of the first process."""
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils import launch

    stated = load_config_from_file(str(EXAMPLES / config))
    parsed = launch_command_parser().parse_args(["--config_file", str(EXAMPLES / config), "unused.py"])
    arguments, *_ = _validate_launch_command(parsed)
    if arguments.use_deepspeed:
        arguments.deepspeed_fields_from_accelerate_config = ",".join(stated.deepspeed_config)
        _, found = launch.prepare_deepspeed_cmd_env(arguments)
    else:
        found = launch.prepare_multi_gpu_env(arguments)
    own = {name: value for name, value in found.items() if os.environ.get(name) != value}
    return {name: value for name, value in own.items() if not name.startswith(("MASTER_", "RANK", "WORLD_"))}


def shard_on_cpu() -> None:
    """Let accelerate take the CPU for a GPU: it shards nothing on a CPU. Call it before any trainer is imported."""
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType
    from transformers import training_args

    os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    training_args.is_torch_bf16_gpu_available = lambda: True
    PartialState._prepare_backend = lambda *_, **__: ("gloo", DistributedType.MULTI_GPU)
