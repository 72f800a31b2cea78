"""Distilled RLAIF from one config: a judge labels, a reward model learns the labels, PPO trains on it."""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from rlaif_sdk import ConfigError, DataError, RlaifError  # noqa: E402
from rlaif_sdk.cli.main import app  # noqa: E402
from rlaif_sdk.io.jobs import locked  # noqa: E402
from rlaif_sdk.training.distill import DistillResult, load_distill_run, run_distill  # noqa: E402
from tests.training.distill_runs import HELD_OUT, PROMPTS, distill_config, read_rows  # noqa: E402

STAGES = ["candidates", "labels", "reward_model", "policy", "comparison"]
SETTLED = ("candidates", "labels", "reward_model", "comparison")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], DistillResult]:
    """A run to the end, and its config."""
    torch.set_num_threads(1)
    config = distill_config(tmp_path_factory.mktemp("finished"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return config, run_distill(config)


@pytest.fixture
def copied(finished: tuple[dict[str, Any], DistillResult], tmp_path: Path) -> dict[str, Any]:
    """The config of a copy of that run."""
    config, result = finished
    shutil.copytree(result.output, tmp_path / "out")
    return {**config, "output": str(tmp_path / "out")}


def figures(result: DistillResult) -> dict[str, Any]:
    """What the stages came to, without the time that it took."""
    return {
        name: {key: value for key, value in stage.items() if key != "training_seconds"}
        for name, stage in result.stages.items()
    }


def test_every_stage_leaves_its_part(finished: tuple[dict[str, Any], DistillResult]) -> None:
    """Pairs with soft labels, a reward model and how good it is on other prompts, a plain policy, a comparison."""
    _, result = finished
    assert [*result.stages] == STAGES
    candidates, labels = result.stages["candidates"], result.stages["labels"]
    assert candidates["completions"] == PROMPTS * 3
    assert candidates["pairs"] + candidates["identical_pairs"] == PROMPTS * 3
    assert labels["labelled"] == candidates["pairs"] == sum(labels["rows"].values())
    rows = read_rows(result.output / "labels" / "train.jsonl")
    assert all(0.5 <= row["chosen_prob"] < 1 for row in rows)
    assert result.stages["reward_model"]["held_out_pairs"] == labels["rows"]["held_out"]
    assert {"accuracy", "ece", "agreement"} <= set(result.stages["reward_model"]["after"])
    assert result.stages["policy"]["rewards"]["reward_model"]["change"]["n"] == HELD_OUT
    assert result.stages["comparison"]["win_rate"]["n"] == HELD_OUT
    AutoModelForCausalLM.from_pretrained(result.policy)


def test_the_reward_model_is_evaluated_on_prompts_that_it_was_not_trained_on(
    finished: tuple[dict[str, Any], DistillResult],
) -> None:
    """No prompt is on both sides, and a quarter of them is held out, as the config has it."""
    _, result = finished
    train, held_out = (
        {json.dumps(row["prompt"]) for row in read_rows(result.output / "labels" / name)}
        for name in ("train.jsonl", "held-out.jsonl")
    )
    assert not train & held_out
    assert (len(train), len(held_out)) == (6, 2)


def test_the_policy_is_rewarded_by_the_reward_models_own_logit(
    finished: tuple[dict[str, Any], DistillResult],
) -> None:
    """Of the prompt and the answer in the chat template, as transformers itself computes it."""
    _, result = finished
    model = AutoModelForSequenceClassification.from_pretrained(result.reward_model, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(result.reward_model)
    samples = read_rows(result.output / "policy" / "samples.jsonl")
    scores = [sample["before"]["rewards"]["reward_model"]["raw"] for sample in samples]
    expected = []
    for sample in samples:
        messages = [*sample["prompt"], *sample["before"]["completion"]]
        ids = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, return_tensors="pt")
        with torch.no_grad():
            expected.append(model(**ids).logits.item())
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert np.std(expected) > 1e-3


def test_the_judge_compares_the_answers_before_and_after(finished: tuple[dict[str, Any], DistillResult]) -> None:
    """The win rate is the share of held-out prompts on which it prefers the answer after training."""
    _, result = finished
    labels = read_rows(result.output / "comparison" / "labels" / "labels.jsonl")
    samples = read_rows(result.output / "policy" / "samples.jsonl")
    after = [sample["after"]["completion"] for sample in samples]
    wins = [
        0.5 if label["tie"] else float(label["chosen"] == answer) for label, answer in zip(labels, after, strict=True)
    ]
    assert result.stages["comparison"]["win_rate"]["mean"] == pytest.approx(np.mean(wins))


LOST: dict[str, tuple[str, ...]] = {
    "comparison": ("comparison",),
    "reward_model": ("comparison", "policy", "reward_model/stage.json"),
    "candidates": (
        *("comparison", "policy", "reward_model", "labels"),
        *("candidates/stage.json", "candidates/completions/000001.json"),
    ),
}
"""What a kill may leave undone, by the stage that it fell in."""


@pytest.mark.parametrize("lost", LOST.values(), ids=LOST)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_resumed_run_does_what_is_missing_and_comes_to_the_same_end(
    finished: tuple[dict[str, Any], DistillResult], copied: dict[str, Any], lost: tuple[str, ...]
) -> None:
    """Whatever was done is not done again."""
    output = Path(copied["output"])
    for name in lost:
        shutil.rmtree(output / name) if (output / name).is_dir() else (output / name).unlink()
    kept = {path: path.stat().st_ino for name in SETTLED for path in output.glob(f"{name}/**/*.json")}
    result = run_distill(copied, resume=True)
    assert figures(result) == figures(finished[1])
    remade = {path for path, inode in kept.items() if path.stat().st_ino != inode}
    assert {path.relative_to(output).parts[0] for path in remade} <= {Path(name).parts[0] for name in lost}
    assert not [path for path in remade if path.parent.name == "completions"]


def test_labels_that_are_there_are_not_asked_for_again(copied: dict[str, Any]) -> None:
    """Of a labelling that was cut off, the judge sees only the rest."""
    labels = Path(copied["output"]) / "labels"
    journal = labels / "__job__" / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:10]))
    for name in ("stage.json", "labels.jsonl"):
        (labels / name).unlink()
    run_distill(copied, resume=True)
    again = journal.read_text().splitlines(keepends=True)
    assert again[:10] == lines[:10]
    assert len(again) == len(lines)


def test_another_config_is_refused_and_what_changed_is_named(copied: dict[str, Any]) -> None:
    """With the old and the new value, before anything is done."""
    changed = {**copied, "label": {**copied["label"], "chain_of_thought": True}, "seed": 3}
    with pytest.raises(ConfigError) as refused:
        run_distill(changed, resume=True)
    assert "label.chain_of_thought: " in str(refused.value)
    assert "seed: 0 → 3" in str(refused.value)
    assert "stop" not in str(refused.value)


def test_other_evaluation_or_code_is_refused_unless_told(copied: dict[str, Any], tmp_path: Path) -> None:
    """Of every composition, in the run's file or in one of its own; what has changed is noted where it is allowed."""
    (tmp_path / "mine.py").write_text("def brief(completions):\n    return [0.0 for _ in completions]\n")
    (tmp_path / "held-out.yaml").write_text("rewards:\n  brief: {use: 'mine.py:brief'}\n")
    run = {**copied, "evaluation": str(tmp_path / "held-out.yaml"), "output": str(tmp_path / "fresh")}
    shutil.copytree(copied["output"], run["output"])
    kept = Path(run["output"]) / "__job__" / "identity.json"
    run_distill(replace(load_distill_run(run), allow_changed=True), resume=True)
    (tmp_path / "mine.py").write_text("def brief(completions):\n    return [1.0 for _ in completions]\n")
    (tmp_path / "held-out.yaml").write_text("rewards:\n  brief: {use: 'mine.py:brief', weight: 2}\n")
    with pytest.raises(ConfigError) as refused:
        run_distill(run, resume=True)
    assert "code.evaluation mine.py: " in str(refused.value)
    assert "evaluation.rewards.brief.weight: 1.0 → 2.0" in str(refused.value)
    run_distill(replace(load_distill_run(run), allow_changed=True), resume=True)
    assert len(json.loads(kept.read_text())["changed"][1]) == 2


def test_labels_under_way_begin_anew_with_a_changed_judge_that_is_allowed(copied: dict[str, Any]) -> None:
    """What the other judge said is kept aside, and not mixed in; refused, the run can be set back."""
    output = Path(copied["output"])
    journal = output / "labels" / "__job__" / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:10]))
    (output / "labels" / "stage.json").unlink()
    changed = {**copied, "label": {**copied["label"], "orders": "given"}}
    with pytest.raises(ConfigError, match=r"label\.orders: "):
        run_distill(changed, resume=True)
    told = replace(load_distill_run(changed), allow_changed=True)
    run_distill(told, resume=True)
    assert (output / "labels" / "__job__" / "earlier-1" / "__job__" / "journal.jsonl").read_text() == "".join(
        lines[:10]
    )
    again = journal.read_text().splitlines(keepends=True)
    assert len(again) == len(lines)
    assert again != lines
    run_distill(changed, resume=True)


def test_a_run_is_not_begun_again_in_its_folder(copied: dict[str, Any]) -> None:
    """Unless it is to be resumed."""
    with pytest.raises(ConfigError, match=r"already holds a distillation.*--resume"):
        run_distill(copied)


def test_two_processes_do_not_work_on_one_run(copied: dict[str, Any]) -> None:
    """The second one is refused."""
    with locked(Path(copied["output"])), pytest.raises(DataError, match="another process"):
        run_distill(copied, resume=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": {"judge": {"model": "$policy"}, "order": "both"}}, "did you mean 'orders'"),
        ({"label": {"judge": {"model": "$policy"}, "pairs": {"file": "x.jsonl"}}}, r"label.pairs.*leave it out"),
        ({"label": {"judge": {"model": "$policy", "batchsize": 1}}}, "batch"),
        ({"reward_model": {"learning_rat": 1}}, r"reward_model.learning_rat.*did you mean 'learning_rate'"),
        ({"ppo": {"kl_coeff": 1}}, r"ppo.kl_coeff.*did you mean 'kl_coef'"),
        ({"candidates": {"completions": 1}}, "completions"),
        ({"composition": {"rewards": {"judge": {}}}}, r"nothing by \$reward_model"),
        ({"evaluation": {"rewards": {"no_such_reward": {}}}}, "no_such_reward"),
    ],
)
def test_a_config_that_cannot_be_meant_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    """Whatever stage it is of, with the key, and before anything is sampled."""
    config = {**distill_config(tmp_path), **change}
    with pytest.raises(RlaifError, match=message):
        run_distill(config)
    assert not (tmp_path / "out" / "candidates").exists()


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_command_runs_a_file_with_further_rewards_beside_the_distilled_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts of text, a composition in a file of its own with rewards of yours, another base for the reward model."""
    config = distill_config(tmp_path, chat=False)
    (tmp_path / "mine.py").write_text("def short(completions):\n    return [-len(text) / 9 for text in completions]\n")
    rewards = {
        "learnt": {"use": "reward_model", "params": {"model": "$reward_model"}, "normalize": "zscore"},
        "short": {"use": "./mine.py:short", "weight": 0.5},
    }
    (tmp_path / "rewards.yaml").write_text(json.dumps({"rewards": rewards}))
    config |= {
        "composition": "rewards.yaml",
        "reward_base": {"name": str(tmp_path / "start")},
        "evaluation": {"rewards": {"words": {"use": "./mine.py:short"}}},
    }
    (tmp_path / "run.yaml").write_text(json.dumps(config))
    monkeypatch.chdir(tmp_path.parent)
    done = CliRunner().invoke(app, ["distill", str(tmp_path / "run.yaml"), "--set", "seed=1"], catch_exceptions=False)
    assert done.exit_code == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [*report] == STAGES
    assert set(report["policy"]["rewards"]) == {"learnt", "short", "composed_reward"}
    assert set(report["policy"]["evaluation"]) == {"words", "composed_reward"}
    text = (tmp_path / "out" / "report.md").read_text()
    assert f"on {report['reward_model']['held_out_pairs']} held-out pairs" in text
    assert "| not trained on: words |" in text
    for file in ("reward_model/reliability.png", "policy/curves.png"):
        assert (tmp_path / "out" / file).stat().st_size > 1000


def test_the_default_reward_is_the_trained_model_alone(tmp_path: Path) -> None:
    """Scaled, since its scores have no scale of their own."""
    rewards = load_distill_run(distill_config(tmp_path)).composition_config().rewards
    assert [*rewards] == ["reward_model"]
    assert rewards["reward_model"].normalize.kind == "zscore"
