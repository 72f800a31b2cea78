"""The quickstart as a whole."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")
pytest.importorskip("matplotlib")

from rich.console import Console  # noqa: E402
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM  # noqa: E402

from rlaif_sdk import ConfigError  # noqa: E402
from rlaif_sdk.composer import what_if  # noqa: E402
from rlaif_sdk.quickstart.model import MissingModelError, find_gguf  # noqa: E402
from rlaif_sdk.quickstart.run import judges_itself, run_quickstart, show_first_scores, write_config  # noqa: E402
from rlaif_sdk.training.data import load_prompts  # noqa: E402
from rlaif_sdk.training.methods import (  # noqa: E402
    load_run,
    trainer_settings,
)

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

BREVITY = """\
composition:
  rewards:
    brevity: {use: "./brevity.py:brevity"}
"""


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=140)


@pytest.fixture
def small_config(tmp_path: Path) -> Callable[..., Path]:
    """Writes the quickstart's config for a tiny model and a reward of one line, for a run of seconds."""

    def make() -> Path:
        from tokenizers import Tokenizer, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        words = ["<pad>", "<eos>", "<unk>", *"abcdefgh"]
        backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
        backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=backend,
            pad_token="<pad>",
            eos_token="<eos>",
            unk_token="<unk>",
            chat_template="{% for m in messages %}{{ m.content }}{% endfor %}",
        )
        torch.manual_seed(0)
        sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        tokens = {"vocab_size": len(words), "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
        LlamaForCausalLM(LlamaConfig(**sizes, **tokens, num_key_value_heads=2)).save_pretrained(tmp_path / "start")
        tokenizer.save_pretrained(tmp_path / "start")
        config = write_config(tmp_path / "config", tmp_path / "start")
        text = config.read_text()
        before, _, rest = text.partition("composition:")
        text = before + BREVITY + rest[rest.index("\nppo:") :]
        text = re.sub(r"max_steps: \d+", "max_steps: 2", text)
        config.write_text(text.replace("held_out_rows: 128", "held_out_rows: 4"))
        (config.parent / "brevity.py").write_text(
            "def brevity(prompts, completions):\n    return [-len(c[0]['content'].split()) for c in completions]\n"
        )
        return config

    return make


def test_the_written_config_is_complete(tmp_path: Path):
    """A folder with the config and the prompts is all that a run needs; every key of it is known."""
    run = load_run("ppo", write_config(tmp_path / "out", tmp_path / "a: model"))
    assert run.config.model.name == str(tmp_path / "a: model"), "any path survives YAML"
    assert run.output.resolve() == (tmp_path / "out").resolve()
    settings = trainer_settings(run)
    train, held_out = load_prompts(run.config.data, run.folder)
    assert len(train) >= settings.rollout_size
    assert len(held_out) == 128


def test_the_four_rewards_are_composed_and_the_judge_weighs_least(tmp_path: Path):
    """The composition is built from the installed plugins by name."""
    for plugin in ("rlaif_toxicity", "rlaif_conciseness", "rlaif_factuality", "rlaif_judge"):
        pytest.importorskip(plugin)
    with load_run("ppo", write_config(tmp_path / "out", tmp_path)).composer() as composer:
        weights = composer.weights
    assert set(weights) == {"toxicity", "conciseness", "factuality", "judge"}
    assert min(weights, key=weights.__getitem__) == "judge"
    assert weights["judge"] <= 0.1 * sum(weights.values())


def test_a_model_that_judges_itself_is_told_from_another_judge(tmp_path: Path):
    """The output says that the quickstart's own judge is weak, and does not say so of a judge that the user names."""
    config = write_config(tmp_path / "out", tmp_path)
    assert judges_itself(load_run("ppo", config).config)
    other = ["composition.rewards.judge.params.model=another/model"]
    assert not judges_itself(load_run("ppo", config, overrides=other).config)


def test_a_run_leaves_everything_that_it_promises(small_config: Callable[..., Path], tmp_path: Path, console: Console):
    """Tables on the terminal; metrics, samples, curves and a plain model in the folder."""
    output = tmp_path / "out"
    result = run_quickstart(output, small_config(), console=console)
    text = console.file.getvalue()
    assert "brevity" in text
    assert "composed_reward" in text
    assert "step 1/2" in text
    assert "weak judge" not in text, "this config has no judge"
    metrics: dict[str, Any] = json.loads((output / "metrics.json").read_text())
    change = metrics["held_out"]["composed_reward"]["change"]
    assert f"{change['mean']:+.3f}" in text
    assert metrics["held_out"]["brevity"]["before"]["n"] == 4
    assert metrics["optimiser_steps"] == 2
    assert (output / "curves.png").stat().st_size > 5000
    assert len((output / "samples.jsonl").read_text().splitlines()) == 4
    assert AutoModelForCausalLM.from_pretrained(result.model_folder).config.model_type == "llama"


def with_variety(config: Path) -> Path:
    """The config with a second, lighter reward."""
    added = BREVITY + '    variety: {use: "./brevity.py:variety", weight: 0.5}\n'
    config.write_text(config.read_text().replace(BREVITY, added))
    with (config.parent / "brevity.py").open("a") as file:
        file.write("def variety(completion_texts):\n    return [len(set(text.split())) for text in completion_texts]\n")
    return config


def test_the_first_scores_come_before_training(small_config: Callable[..., Path], console: Console):
    """Real answers are scored, one total is explained, and the heaviest reward is left out of the sum."""
    config = with_variety(small_config())
    composition = show_first_scores(load_run("ppo", config), console, answers=4)
    shown = console.file.getvalue()
    assert len(composition.totals) == 4
    assert all(f"{total:+.3f}" in shown for total in composition.totals)
    assert str(composition.explain(0)) in shown
    left_out = {"rewards": {"brevity": {"weight": 0}, "variety": {"weight": 0.5}}}
    flipped = what_if(composition, left_out).summary()["flipped"]
    assert f"What if brevity had no weight (rlaif what-if): {flipped} of 4 advantages" in shown


def test_without_a_config_first_scores_are_shown_before_anything_trains(
    small_config: Callable[..., Path], tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
):
    """The quickstart's first act: answers of the model and why one has its total, and then the training."""
    monkeypatch.setattr("rlaif_sdk.quickstart.run.prepare_policy", lambda *_, **__: tmp_path)
    monkeypatch.setattr("rlaif_sdk.quickstart.run.write_config", lambda *_: with_variety(small_config()))
    run_quickstart(tmp_path / "out", console=console)
    shown = console.file.getvalue()
    acts = [
        "First scores: the model answers",
        "Why the first answer has its total",
        "Training: the model now learns",
        "step 1/2",
    ]
    assert [shown.find(act) for act in acts] == sorted(shown.find(act) for act in acts)
    assert min(shown.find(act) for act in acts) >= 0


def test_a_folder_with_anything_in_it_is_left_alone(tmp_path: Path, console: Console):
    """Nothing is overwritten, and nothing is loaded first."""
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty"):
        run_quickstart(tmp_path, console=console)
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_quickstart_learns(tmp_path: Path, console: Console):
    """On held-out prompts the composed reward rises by more than its standard error, without collapse."""
    try:
        find_gguf()
    except MissingModelError as missing:
        pytest.skip(str(missing))
    run_quickstart(tmp_path / "out", console=console)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    held_out = metrics["held_out"]
    change = held_out["composed_reward"]["change"]
    assert change["mean"] > change["standard_error"], console.file.getvalue()
    assert held_out["length_tokens"]["after"]["mean"] > 8
    assert held_out["repetition_share"]["after"]["mean"] < 0.1
    assert metrics["kl_per_answer"][-1] < 20
