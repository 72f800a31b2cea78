"""Closed loops, end to end on a tiny real model."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

import jsonschema  # noqa: E402
from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from rlaif_sdk import ConfigError  # noqa: E402
from rlaif_sdk.cli.main import app  # noqa: E402
from rlaif_sdk.exceptions import TrainingError  # noqa: E402
from rlaif_sdk.training.iterate import load_iterate_run, run_iterate  # noqa: E402
from rlaif_sdk.training.iterate.loop import check_iterate  # noqa: E402
from tests.training.iterate_runs import loop_config, scored_rows  # noqa: E402

VOCABULARY = ["<pad>", "<eos>", "<unk>", "1", "2", "user", *(f"w{index}" for index in range(28))]


@pytest.fixture
def config(tmp_path: Path, llama: Any, tokenizer: Any) -> dict[str, Any]:
    return loop_config(tmp_path, llama, tokenizer)


def read(file: Path) -> Any:
    return json.loads(file.read_text())


def read_rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def wanted(text: str) -> int:
    return sum(word.startswith("w1") for word in text.split())


def weights(folder: str | Path) -> list[Any]:
    return [*AutoModelForCausalLM.from_pretrained(folder).parameters()]


def differ(one: str | Path, other: str | Path) -> bool:
    return any(not torch.equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))


@pytest.mark.parametrize(
    "method", ["dpo", "ppo", *(pytest.param(name, marks=pytest.mark.slow) for name in ("sft", "grpo"))]
)
def test_each_round_starts_from_the_policy_of_the_one_before(
    tmp_path: Path, llama: Any, tokenizer: Any, method: str
) -> None:
    """Whatever trains; each round leaves a plain model and an evaluation, and ``model`` is the best of them."""
    config = loop_config(tmp_path, llama, tokenizer, method)
    result = run_iterate(config)
    rounds = [tmp_path / "out" / f"round-00{number}" for number in range(3)]
    assert len(result.evaluations) == 3
    assert result.end == "all 2 rounds are done"
    assert read(rounds[1] / "trained.json")["from"] == config["model"]["name"]
    assert read(rounds[2] / "trained.json")["from"] == str(rounds[1] / "training" / "model")
    assert differ(rounds[1] / "training" / "model", config["model"]["name"])
    assert differ(rounds[2] / "training" / "model", rounds[1] / "training" / "model")
    for number, evaluation in enumerate(result.evaluations):
        assert evaluation == read(rounds[number] / "evaluation.json")
        assert evaluation["rewards"]["wanted"]["n"] == 4
        assert len((rounds[number] / "samples.jsonl").read_text().splitlines()) == 4
    totals = [evaluation["composed_reward"]["mean"] for evaluation in result.evaluations]
    assert totals[result.best] == max(totals)
    link = tmp_path / "out" / "model"
    assert link.exists() == (result.best > 0)
    if result.best:
        assert str(link.resolve()) == result.model


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dpo", "sft"])
def test_the_loop_learns(tmp_path: Path, llama: Any, tokenizer: Any, method: str) -> None:
    """Over rounds on its own completions the policy comes to say the wanted word more often."""
    config = loop_config(tmp_path, llama, tokenizer, method)
    config[method] |= {"max_steps": 12}
    config["stop"]["rounds"] = 4
    config["candidates"] |= {"completions": 8, "batch_size": 64, "prompts": 12}
    result = run_iterate(config)
    wanted = [evaluation["rewards"]["wanted"]["mean"] for evaluation in result.evaluations]
    assert max(wanted) > wanted[0] + 0.15


def test_pairs_are_of_the_policy_s_own_completions_and_the_better_one_is_chosen(config: dict[str, Any]) -> None:
    """One pair a prompt at most, from the round's candidates, chosen for its composed reward; some are held back."""
    run_iterate({**config, "stop": {"rounds": 1}})
    folder = Path(config["output"]) / "round-001"
    parts = [read(file) for file in sorted((folder / "completions").glob("*.json"))]
    completions = {text for part in parts for text in part["completions"]}
    assert len(parts) == 4
    pairs = read_rows(folder / "train.jsonl")
    held_back = read_rows(folder / "held-out.jsonl")
    assert len(held_back) == 1
    assert 1 <= len(pairs) <= 7
    for pair in pairs + held_back:
        assert pair["chosen"] in completions
        assert pair["rejected"] in completions
        assert wanted(pair["chosen"]) > wanted(pair["rejected"])
        assert 0.5 < pair["chosen_prob"] < 1


def test_the_held_out_prompts_are_always_measured_alike(config: dict[str, Any]) -> None:
    """A reward whose scale is learned while training is measured on the scale of the starting model's answers."""
    result = run_iterate(config)
    state = read(Path(config["output"]) / "round-000" / "evaluation-state.json")
    assert state["rewards"]["wanted"]["state"]["count"] == 4
    start, *others = result.evaluations
    samples = read_rows(Path(config["output"]) / "round-000" / "samples.jsonl")
    scores = [row["rewards"]["wanted"]["raw"] for row in samples]
    mean = sum(scores) / 4
    scale = math.sqrt(sum((score - mean) ** 2 for score in scores) / 4)
    for evaluation in result.evaluations:
        raw, total = evaluation["rewards"]["wanted"]["mean"], evaluation["composed_reward"]["mean"]
        assert total == pytest.approx((raw - mean) / scale, abs=1e-3)
    assert any(evaluation["rewards"]["wanted"]["mean"] != mean for evaluation in others)
    assert start["kl"]["mean"] == 0
    assert start["change"]["mean"] == 0
    assert all(evaluation["kl"]["mean"] != 0 for evaluation in others)


def test_the_candidates_statistics_go_on_through_the_rounds(config: dict[str, Any]) -> None:
    """As those of any training do."""
    run_iterate(config)
    states = [read(Path(config["output"]) / f"round-00{number}" / "candidates.json")["state"] for number in (1, 2)]
    assert [state["rewards"]["wanted"]["state"]["count"] for state in states] == [32, 64]


def test_divergence_is_that_of_the_policy_from_the_starting_model(config: dict[str, Any], tokenizer: Any) -> None:
    """The mean over answers of the log-ratio, at the sampling temperature, against a plain computation."""
    config["candidates"]["temperature"] = 0.7
    result = run_iterate({**config, "stop": {"rounds": 1}})
    answers = read(Path(config["output"]) / "round-001" / "answers.json")
    prompts = read_rows(Path(config["data"]["train"]))[-4:]
    models = [AutoModelForCausalLM.from_pretrained(name).eval() for name in (result.evaluations and
              Path(config["output"]) / "round-001" / "training" / "model", config["model"]["name"])]  # fmt: skip
    ratios = []
    for prompt, completion in zip(prompts, answers["completion_ids"], strict=True):
        ids = torch.tensor([[*tokenizer(prompt["prompt"])["input_ids"], *completion]])
        logprobs = [
            (model(ids).logits[0, :-1] / 0.7).log_softmax(-1).gather(1, ids[0, 1:, None])[-len(completion) :].sum()
            for model in models
        ]
        ratios.append((logprobs[0] - logprobs[1]).item())
    assert result.evaluations[1]["kl"]["mean"] == pytest.approx(sum(ratios) / 4, abs=1e-3)


def test_the_policy_of_the_round_may_be_its_own_judge(config: dict[str, Any], tmp_path: Path) -> None:
    """``$policy`` in the composition is the model that the round starts from, and in the evaluation the first one."""
    (tmp_path / "judge.py").write_text(
        "from pathlib import Path\nfrom pydantic import BaseModel\nfrom rlaif_sdk import Params, Reward, RewardSpec\n\n\n"
        "class JudgeParams(Params):\n    model: str\n\n\n"
        "class Judge(Reward):\n    name = 'judge'\n    version = '1'\n\n"
        "    def __init__(self, params):\n        self.model = params.model\n\n"
        "    def score(self, batch):\n"
        "        with Path(__file__).with_name('judges.txt').open('a') as stream:\n"
        "            stream.write(self.model + '\\n')\n"
        "        return [text.count('w1') / 8 for text in batch.completion_texts]\n\n\n"
        "judge = RewardSpec(name='judge', factory=Judge, params=JudgeParams, description='Says who it is')\n"
    )
    config["composition"] = {
        "rewards": {"judge": {"use": f"{tmp_path}/judge.py:judge", "params": {"model": "$policy"}}}
    }
    run_iterate(config)
    judges = list(dict.fromkeys((tmp_path / "judges.txt").read_text().splitlines()))
    assert judges == [config["model"]["name"], str(tmp_path / "out" / "round-001" / "training" / "model")]


def test_a_curriculum_goes_by_the_round_s_own_measure(config: dict[str, Any]) -> None:
    """Prompts whose completions are all alike teach nothing; the others come widest first, unshuffled."""
    config["data"]["curriculum"] = {"by": "spread", "min_spread": 0.001, "rows": 5}
    run_iterate({**config, "stop": {"rounds": 1}})
    found = read(Path(config["output"]) / "round-001" / "candidates.json")
    spreads = [found["reward_spread"][index] for index in found["order"]]
    assert len(spreads) <= 5
    assert spreads == sorted(spreads, reverse=True)
    assert min(spreads) > 0
    folder = Path(config["output"]) / "round-001"
    rows = [*read_rows(folder / "train.jsonl"), *read_rows(folder / "held-out.jsonl")]
    assert {row["prompt"] for row in rows} <= {found["prompts"][index] for index in found["order"]}
    assert read(folder / "training" / "run.json")["config"]["dpo"]["train_sampling_strategy"] == "sequential"


def test_an_online_method_takes_a_curriculum_too(tmp_path: Path, llama: Any, tokenizer: Any) -> None:
    """The round samples completions to measure its prompts, and trains on those that are left, in order."""
    config = loop_config(tmp_path, llama, tokenizer, "grpo")
    config["data"]["curriculum"] = {"rows": 3}
    run_iterate({**config, "stop": {"rounds": 1}})
    folder = tmp_path / "out" / "round-001"
    found = read(folder / "candidates.json")
    rows = read_rows(folder / "train.jsonl")
    assert [row["prompt"] for row in rows] == [found["prompts"][index] for index in found["order"]]
    assert all(row["target"] == "w1" for row in rows)


def test_rounds_may_start_from_the_first_model_each_time(config: dict[str, Any]) -> None:
    """The completions are then that model's, too."""
    run_iterate({**config, "start_from": "start"})
    assert read(Path(config["output"]) / "round-002" / "trained.json")["from"] == config["model"]["name"]


def test_a_loop_with_nothing_to_learn_from_says_so(config: dict[str, Any]) -> None:
    """And where the scores are to be seen."""
    config["pairs"] = {"min_gap": 1000.0}
    with pytest.raises(TrainingError, match="round 1 has 0 pairs to learn from"):
        run_iterate(config)


def test_a_target_ends_the_loop_at_once(config: dict[str, Any], tmp_path: Path) -> None:
    """If the starting model has reached it, nothing is trained, and it is the best."""
    result = run_iterate({**config, "stop": {"target": -100.0}})
    assert result.best == 0
    assert result.model == config["model"]["name"]
    assert not (tmp_path / "out" / "model").exists()
    assert "reached the target" in result.end
    assert math.isfinite(result.evaluations[0]["composed_reward"]["mean"])
    assert scored_rows(tmp_path) == 8


def test_a_judge_that_compares_answers_may_label_the_pairs(
    config: dict[str, Any], tmp_path: Path, make_llama: Any
) -> None:
    """The policy itself, say, in both orders; its label takes the place of the rewards' difference."""
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(VOCABULARY)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    template = "{% for m in messages %}{{ m.content + ' ' }}{% endfor %}"
    special = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=template, **special).save_pretrained(
        tmp_path / "start"
    )
    make_llama(max_position_embeddings=512).save_pretrained(tmp_path / "start")
    config["label"] = {"judge": {"model": "$policy"}, "max_failed_share": 0}
    run_iterate({**config, "stop": {"rounds": 1}})
    folder = tmp_path / "out" / "round-001"
    pairs, labels = read_rows(folder / "pairs.jsonl"), read_rows(folder / "labels" / "labels.jsonl")
    rows = [*read_rows(folder / "train.jsonl"), *read_rows(folder / "held-out.jsonl")]
    assert len(rows) == len(labels) == len(pairs)
    assert {row["prompt"] for row in rows} == {pair["prompt"] for pair in pairs}
    assert all(0 < row["chosen_prob"] < 1 for row in rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dpo": {"learning_rat": 1}}, "did you mean 'learning_rate'"),
        ({"grpo": {"max_steps": 1}}, "grpo: is for method: grpo, and the method is dpo"),
        ({"best": {"keep": 2}}, "best: is for method: sft"),
        ({"label": {"judge": {"model": "$policy"}, "order": "both"}}, "did you mean 'orders'"),
        ({"stop": {"max_regression": {"wandet": 1}}}, "is no reward of the evaluation"),
        ({"stop": {"patience": 0}}, "patience"),
    ],
)
def test_a_config_that_cannot_be_meant_is_refused(config: dict[str, Any], change: dict[str, Any], message: str) -> None:
    """With the key, and before anything is trained."""
    with pytest.raises(ConfigError, match=message):
        run_iterate(load_iterate_run({**config, **change}))
    assert not (Path(config["output"]) / "round-001").exists()


def test_a_check_tells_a_wrong_setting_before_a_reward_is_called(config: dict[str, Any], tmp_path: Path) -> None:
    """And beside whatever else is wrong."""
    config["dpo"]["max_stepss"] = 3
    (setting,) = check_iterate(load_iterate_run(config)).problems
    assert "max_stepss" in str(setting)
    assert scored_rows(tmp_path) == 0
    setting, file = check_iterate(
        load_iterate_run({**config, "data": {**config["data"], "train": "nowhere.jsonl"}})
    ).problems
    assert "max_stepss" in str(setting)
    assert "nowhere.jsonl" in str(file)


def test_the_command_line_shows_the_rounds_and_resumes(config: dict[str, Any], tmp_path: Path) -> None:
    """A table, why the loop ended, and how to load the best model; then another round with --resume."""
    (tmp_path / "loop.json").write_text(json.dumps(config))
    arguments = ["iterate", "--config", str(tmp_path / "loop.json"), "--set"]
    done = CliRunner().invoke(app, [*arguments, "stop.rounds=1"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "The loop ended: the one round is done." in done.output
    assert "Rounds, on the held-out prompts" in done.output
    done = CliRunner().invoke(app, [*arguments, "stop.rounds=2", "--resume"], catch_exceptions=False)
    summary = json.loads((tmp_path / "out" / "rounds.json").read_text())
    assert len(summary["rounds"]) == 3
    assert summary["end"] == "all 2 rounds are done"
    assert f'from_pretrained("{summary["model"]}")' in done.output
    assert (tmp_path / "out" / "curves.png").stat().st_size > 1000


def test_the_schema_accepts_the_config(config: dict[str, Any]) -> None:
    """`rlaif schema iterate` describes what a loop takes, and refuses a key that it does not."""
    done = CliRunner().invoke(app, ["schema", "iterate"], catch_exceptions=False)
    validator = jsonschema.Draft202012Validator(json.loads(done.output))
    assert validator.is_valid(config)
    assert not validator.is_valid({**config, "rounds": 2})
