"""PPO in two processes: what one process with all the rows would do, and written once."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from accelerate.commands.config.config_args import load_config_from_file  # noqa: E402
from accelerate.commands.launch import launch_command_parser  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification  # noqa: E402

from rlaif_sdk import Composer, RewardBatch  # noqa: E402
from rlaif_sdk.composer import Composition  # noqa: E402
from rlaif_sdk.exceptions import ConfigError, TrainingError  # noqa: E402
from rlaif_sdk.training.distill import run_distill  # noqa: E402
from rlaif_sdk.training.iterate.loop import run_iterate  # noqa: E402
from rlaif_sdk.training.methods import train  # noqa: E402
from rlaif_sdk.training.ppo import PPOConfig  # noqa: E402
from rlaif_sdk.training.ppo.checkpoint import critic_weights  # noqa: E402
from rlaif_sdk.training.ppo.masked import explained_variance, masked_whiten  # noqa: E402
from rlaif_sdk.training.ppo.processes import Measured, Processes, measured_rows  # noqa: E402
from rlaif_sdk.training.ppo.scoring import reward_metrics  # noqa: E402
from rlaif_sdk.training.sweep import run_sweep  # noqa: E402
from tests.two_processes import run_two  # noqa: E402

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("ppo_worker.py")


def run_scenario(folder: Path, scenario: str) -> list[dict[str, Any]]:
    """What each of two processes tells of a scenario in ``ppo_worker.py``."""
    return run_two(WORKER, scenario, str(folder), folder=folder)


@pytest.mark.parametrize(
    "scenario", ["llama-shared", *(pytest.param(name, marks=pytest.mark.slow) for name in ("t5-separate", "gpt2-lora"))]
)
def test_two_processes_train_as_one(tmp_path: Path, scenario: str) -> None:
    """Critic and policy end equal on both, as do the KL price, the composer and what is logged; a run goes on too.

    One process that has the rows of both, one rollout of ragged completions, makes the same optimiser step: the
    advantages are whitened over all rows, and a token weighs the same on either process.
    """
    first, second = run_scenario(tmp_path, scenario)
    for rank in (0, 1):
        assert load_file(tmp_path / f"end{rank}.safetensors").keys() == load_file(tmp_path / "end0.safetensors").keys()
    ends = [load_file(tmp_path / f"end{rank}.safetensors") for rank in (0, 1)]
    starts = load_file(tmp_path / "start.safetensors")
    for name, weights in ends[0].items():
        assert torch.equal(weights, ends[1][name]), name
    critic = [name for name in starts if "value_head" in name or "critic." in name]
    assert any(not torch.equal(starts[name], ends[0][name]) for name in critic)

    assert not set(first["prompts"]) & set(second["prompts"]), "each samples prompts of its own"
    assert first["completions"] != second["completions"], "with a random state of its own"
    for key in ("kl_coef", "composer", "normalizer", "logged"):
        assert first[key] == second[key], key
    assert first["composer"]["rewards"]["letters"]["state"]["count"] == first["scored"] + second["scored"]
    assert first["kl_coef"] != 0.1
    assert {entry["process"] for entry in first["logged"]} == {0.5}, "what a reward logs is of both"
    assert first["extra"] == second["extra"]
    texts = [text for each in (first, second) for text in each["completions"]]
    assert first["extra"]["process"] == [0] * 4 + [1] * 4
    assert first["extra"]["length0"] == [*map(len, texts[:4]), *[None] * 4], "though one process has not the column"
    assert first["extra"]["length1"] == [*[None] * 4, *map(len, texts[4:])]

    single = load_file(tmp_path / "single.safetensors")
    together = load_file(tmp_path / "step0.safetensors")
    for name, weights in single.items():
        torch.testing.assert_close(together[name], weights, atol=2e-6, rtol=1e-4, msg=name)
    for name, figure in first["single"].items():
        assert first["together"][name] == pytest.approx(figure, abs=1e-5), name
    assert any((single[name] - starts[name]).abs().max() > 1e-4 for name in single)

    assert first["resumed"] == second["resumed"] == first["losses_after_resuming"]
    assert first["written"], "rank 0 writes"
    assert not second["written"], "and no other"


def test_statistics_over_processes_are_those_of_all_rows() -> None:
    """Whitening and explained variance of two parts, each with the totals of both, equal those of the whole."""
    torch.manual_seed(0)
    x, y, mask = torch.randn(6, 5), torch.randn(6, 5), (torch.rand(6, 5) > 0.3).long()
    meet = threading.Barrier(2, timeout=20)
    given: list[Any] = [None, None]

    def part(process: int) -> tuple[torch.Tensor, torch.Tensor]:
        def total(value: torch.Tensor) -> torch.Tensor:
            given[process] = value
            meet.wait()
            both = given[0] + given[1]
            meet.wait()
            return both

        rows = (slice(0, 2), slice(2, 6))[process]
        return masked_whiten(x[rows], mask[rows], total), explained_variance(x[rows], y[rows], mask[rows], total)

    with ThreadPoolExecutor(2) as pool:
        (first, variance), (second, same) = pool.map(part, (0, 1))
    torch.testing.assert_close(torch.cat([first, second]), masked_whiten(x, mask))
    assert variance == same == pytest.approx(float(explained_variance(x, y, mask)), abs=1e-6)


def test_figures_of_several_processes_become_one() -> None:
    """Counts are added, the slowest counts for time, the rest is a mean of what is known, by rows."""
    parts = [
        {"reward": 1.0, "reward/a/failed": 1.0, "reward/a/seconds": 2.0, "reward/b/raw_mean": float("nan")},
        {"reward": 2.0, "reward/a/failed": 2.0, "reward/a/seconds": 1.0, "reward/b/raw_mean": 4.0, "only": 3.0},
    ]
    rows = [{"reward": 3, "reward/b/raw_mean": 0}, {"reward": 1, "reward/b/raw_mean": 2}]
    assert of_processes([*zip(parts, rows, strict=True)]) == {
        "reward": 1.25,
        "reward/a/failed": 3.0,
        "reward/a/seconds": 2.0,
        "reward/b/raw_mean": 4.0,
        "only": 3.0,
    }


def of_processes(parts: list[tuple[dict[str, float], dict[str, int]]]) -> dict[str, float]:
    """The figures that are logged where each process has measured a part."""
    processes = Processes.__new__(Processes)
    processes._gather = lambda _: [[Measured(*part)] for part in parts]  # type: ignore[method-assign]
    return processes.metrics([])


def test_the_figures_of_one_process_stay_as_they_are() -> None:
    """To the last digit, and what is not known stays unknown."""
    figures = {"reward": 0.1, "reward_std": 0.7, "reward/a/raw_mean": float("nan")}
    found = of_processes([(figures, dict.fromkeys(figures, 3))])
    assert math.isnan(found.pop("reward/a/raw_mean"))
    assert found == {"reward": 0.1, "reward_std": 0.7}


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.none() | st.floats(-5, 5), min_size=1, max_size=6), min_size=2, max_size=4))
def test_figures_of_uneven_processes_are_those_of_all_rows(scores: list[list[float | None]]) -> None:
    """Whoever scores few rows counts little: means, deviations, shares and counts are those of one process with all."""

    def composed(rows: list[float | None]) -> Composition:
        rewards = {
            "some": lambda column: column,
            "all": lambda column: [float(value is None) for value in column],
            "few": lambda column: [value if value and value > 0 else None for value in column],
        }
        with Composer(rewards, weights={"all": 0.0, "few": 0.0}) as composer:
            batch = RewardBatch(prompts=["p"] * len(rows), completions=["c"] * len(rows), columns={"column": rows})
            return composer.compose(batch)

    def measured(composition: Composition) -> tuple[dict[str, float], dict[str, int]]:
        figures = {name: value for name, value in reward_metrics(composition).items() if name in known}
        return figures, measured_rows(figures, composition)

    known = {
        "reward", "reward_std", "reward/total/mean", "reward/total/std", "reward/total/unscored",
        "proxy/some", "held_out/all", "held_out/few",
        *(f"reward/{name}/{of}" for name in ("some", "all", "few")
          for of in ("raw_mean", "raw_std", "weight", "abstained")),
    }  # fmt: skip
    whole, _ = measured(composed([value for part in scores for value in part]))
    parts = [measured(composed(part)) for part in scores]
    assert of_processes(parts) == pytest.approx(whole, nan_ok=True, abs=1e-9)
    alone = Processes.__new__(Processes)
    alone.count = 1
    assert alone.metrics([Measured(*part) for part in parts]) == pytest.approx(whole, nan_ok=True, abs=1e-9), (
        "as one process's batches, too"
    )


@pytest.mark.parametrize("name", ["std", "raw_std", "failed", "seconds", "mean", "closed", "unscored"])
def test_a_reward_may_have_the_name_of_a_figure(name: str) -> None:
    """Figures that end in its name are means over its rows, as those of any other are."""

    def measured(rows: list[float | None]) -> tuple[dict[str, float], dict[str, int]]:
        rewards = {name: lambda column: column, "other": lambda column: [1.0] * len(column)}
        with Composer(rewards, weights={name: 0.0}) as composer:
            batch = RewardBatch(prompts=["p"] * len(rows), completions=["c"] * len(rows), columns={"column": rows})
            composition = composer.compose(batch)
        figures = reward_metrics(composition)
        return figures, measured_rows(figures, composition)

    found = of_processes([measured([1.0, None, None, None]), measured([0.0, 0.0, 0.0, 0.0])])
    assert found[f"held_out/{name}"] == found[f"reward/{name}/raw_mean"] == pytest.approx(0.2)
    assert found[f"reward/{name}/raw_std"] == pytest.approx(0.4)
    assert found["proxy/other"] == 1.0
    correlations = [({f"correlation/other/{name}": value}, {}) for value in (0.5, 1.0)]
    assert of_processes(correlations) == {f"correlation/other/{name}": 0.75}


def test_a_prompt_s_completions_are_not_torn_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process compares its own rows; a group that would lie on two is refused before anything loads."""
    monkeypatch.setattr("rlaif_sdk.training.ppo.config.PPOConfig.world_size", 2)
    with pytest.raises(ConfigError, match="a rollout of 8 completions in a process is no multiple"):
        PPOConfig("unused", per_device_train_batch_size=4, num_generations=32, use_cpu=True, report_to=[])


def run_config(tmp_path: Path, **more: Any) -> dict[str, Any]:
    """A run's config that names what is not there."""
    return {"model": {"name": "unused"}, "data": {"train": "unused.jsonl"}, "output": str(tmp_path), **more}


def test_only_ppo_from_a_config_takes_weights_in_parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of the two FSDPs the one that resumes; what is refused is so before anything loads, with the way out."""
    composition = {"rewards": {"conciseness": {"use": "conciseness"}}}
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    for method, more in (("grpo", {"composition": composition}), ("dpo", {}), ("sft", {})):
        with pytest.raises(TrainingError, match=r"the launcher asks for FSDP.*in a script"):
            train(method, run_config(tmp_path, **more))
    with pytest.raises(TrainingError, match=r"asks for FSDP1.*fsdp_version: 2"):
        train("ppo", run_config(tmp_path, composition=composition))


def test_a_run_from_a_config_refuses_zero_3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """transformers would load the policy in parts already, and nothing could answer before training."""
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "3")
    with pytest.raises(TrainingError, match=r"ZeRO-3.*zero_stage: 2"):
        train("ppo", run_config(tmp_path, composition={"rewards": {"conciseness": {"use": "conciseness"}}}))


@pytest.mark.parametrize("loop", [run_iterate, run_distill, run_sweep])
def test_loops_over_runs_are_one_process(monkeypatch: pytest.MonkeyPatch, loop: Any) -> None:
    """Under a launcher each process would write the same files."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainingError, match="the launcher has started 2"):
        loop({})


def launched(folder: Path, method: str, config: dict[str, Any], **environment: str) -> Any:
    """``rlaif train`` in two processes of torch's launcher."""
    (folder / "run.yaml").write_text(json.dumps(config))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--no-python"]
    return subprocess.run(
        [*launch, str(Path(sys.executable).with_name("rlaif")), "train", method, "-c", "run.yaml"],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **environment},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ppo", "grpo"])
def test_the_command_line_trains_in_two_processes(tmp_path: Path, llama: Any, tokenizer: Any, method: str) -> None:
    """A launcher's processes train together; the first alone prints and writes, once, and the model loads."""
    llama.save_pretrained(tmp_path / "start")
    tokenizer.save_pretrained(tmp_path / "start")
    (tmp_path / "rewards.py").write_text(
        "def w5(completions):\n    return [float(c.count('w5')) for c in completions]\n"
    )
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"w{row} w3"}) + "\n" for row in range(12)))
    settings = {
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "num_generations": 2,
        "max_completion_length": 6,
        "use_cpu": True,
        **({"beta": 0.0} if method == "grpo" else {"steps_per_generation": 1}),
    }
    config = {
        "model": {"name": "start"},
        "data": {"train": "prompts.jsonl", "held_out_rows": 4},
        "composition": {"rewards": {"w5": {"use": "rewards.py:w5"}}},
        method: settings,
        "output": "out",
    }
    done = launched(tmp_path, method, config)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Rewards on 4 held-out prompts") == 1
    assert len((tmp_path / "out" / "samples.jsonl").read_text().splitlines()) == 4
    assert json.loads((tmp_path / "out" / "run.json").read_text())["status"] == "finished"
    AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "model")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sft", "dpo", "reward-model"])
def test_given_rows_train_in_two_processes(tmp_path: Path, llama: Any, tokenizer: Any, method: str) -> None:
    """Both train and evaluate, each on its rows; the first prints and writes, once, and the model loads."""
    llama.save_pretrained(tmp_path / "start")
    tokenizer.save_pretrained(tmp_path / "start")
    answers = {"completion": "w5"} if method == "sft" else {"chosen": "w5 w2", "rejected": "w7"}
    rows = [{"prompt": f"w{row} ", **answers} for row in range(16)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "model": {"name": "start"},
        "data": {"train": "rows.jsonl", "held_out_rows": 5},
        method.replace("-", "_"): {"max_steps": 2, "per_device_train_batch_size": 2, "use_cpu": True, "bf16": False},
        "output": "out",
    }
    done = launched(tmp_path, method, config)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Everything is in out") == 1
    manifest = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (manifest["status"], manifest["processes"]) == ("finished", 2)
    kind = AutoModelForSequenceClassification if method == "reward-model" else AutoModelForCausalLM
    kind.from_pretrained(tmp_path / "out" / "model")


@pytest.mark.slow
def test_a_process_that_fails_ends_the_job_and_says_why(tmp_path: Path, llama: Any, tokenizer: Any) -> None:
    """The other one, which waits for it, is ended within a minute, and not at the time limit of half an hour."""
    llama.save_pretrained(tmp_path / "start")
    tokenizer.save_pretrained(tmp_path / "start")
    (tmp_path / "rewards.py").write_text(
        "import os, time\n"
        "def broken(completions):\n"
        "    if os.environ['RANK'] == '1':\n"
        "        open('failed', 'w').write(str(time.time()))\n"
        "        raise OSError('the judge of this process is out')\n"
        "    return [float(c.count('w5')) for c in completions]\n"
    )
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"w{row} w3"}) + "\n" for row in range(20)))
    config = {
        "model": {"name": "start"},
        "data": {"train": "prompts.jsonl", "held_out_rows": 4},
        "composition": {"rewards": {"broken": {"use": "rewards.py:broken"}}},
        "ppo": {"max_steps": 2, "per_device_train_batch_size": 4, "max_completion_length": 6, "use_cpu": True},
        "output": "out",
    }
    done = launched(tmp_path, "ppo", config)
    assert done.returncode != 0
    assert "the judge of this process is out" in done.stderr
    assert time.time() - float((tmp_path / "failed").read_text()) < 60
    assert json.loads((tmp_path / "out" / "run.json").read_text())["status"] in {"failed", "running"}


@pytest.mark.parametrize("file", sorted((ROOT / "examples" / "accelerate").glob("*.yaml")), ids=lambda file: file.stem)
def test_the_example_configs_are_what_accelerate_reads(file: Path) -> None:
    """accelerate's own parser takes each file, unknown keys refused, and makes a launch of it."""
    config = load_config_from_file(str(file))
    assert config.num_processes == 2
    assert config.distributed_type.value in {"MULTI_GPU", "FSDP", "DEEPSPEED"}
    known = {action.dest for action in launch_command_parser()._actions}
    for section in (config.fsdp_config, config.deepspeed_config):
        names = {name if name.startswith(("fsdp_", "zero", "offload_", "gradient_")) else "?" for name in section}
        assert names <= known, names - known


def test_a_checkpoint_of_fsdp1_is_refused(make_trainer: Any, llama: Any, tmp_path: Path) -> None:
    """Its critic has no shape that a file's weights could be cut to; the message names the way out."""
    trainer = make_trainer(llama)
    trainer.is_fsdp_enabled = True
    with pytest.raises(TrainingError, match="fsdp_version: 2"):
        trainer._load_from_checkpoint(str(tmp_path))


def test_a_critic_that_nobody_has_whole_is_not_saved(make_trainer: Any, llama: Any, tmp_path: Path) -> None:
    """DeepSpeed gathers nothing where it is told not to: its own checkpoint has the critic, and no file has empty parts."""
    trainer = make_trainer(llama)
    trainer._save(str(tmp_path), state_dict={})
    assert not (tmp_path / "value_head.safetensors").exists()
    assert (tmp_path / "ppo_state.json").exists()


def test_the_critic_is_picked_before_transformers_empties_the_gathered_weights(
    make_trainer: Any, llama: Any, tmp_path: Path
) -> None:
    """``save_pretrained`` takes out of the mapping what it writes, and what is not to be written."""
    trainer = make_trainer(llama)
    gathered = {**trainer.model.state_dict(), "value_head.linear.weight": torch.full((1, 32), 7.0)}
    trainer._save(str(tmp_path), state_dict=gathered)
    assert (load_file(tmp_path / "value_head.safetensors")["linear.weight"] == 7.0).all()


@pytest.mark.parametrize("prefix", ["", "base_model.model."])
def test_a_gathered_state_dict_is_what_is_saved_of_the_critic(make_trainer: Any, llama: Any, prefix: str) -> None:
    """Where each process holds a part, the weights come from the whole policy's, under PEFT's names too."""
    critic = make_trainer(llama, critic="separate").critic
    gathered = {f"{prefix}critic.{name}": torch.full_like(p, 7.0) for name, p in critic.named_parameters()}
    weights = critic_weights(critic, {**gathered, f"{prefix}lm_head.weight": torch.zeros(1)})
    assert weights.keys() == {name for name, _ in critic.named_parameters()}
    assert all((tensor == 7.0).all() for tensor in weights.values())
