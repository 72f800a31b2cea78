"""GRPO runs from a config whose policy calls tools: functions, and the methods of an environment."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
trl = pytest.importorskip("trl")

from typer.testing import CliRunner  # noqa: E402

from rlaif_sdk import ConfigError  # noqa: E402
from rlaif_sdk.cli.train import train_app  # noqa: E402
from rlaif_sdk.plugins.references import load_reference  # noqa: E402
from rlaif_sdk.training import tools  # noqa: E402
from rlaif_sdk.training.methods import load_run, train, trainer_settings  # noqa: E402
from tests.tiny_models import byte_tokenizer, tiny_llama  # noqa: E402

CODE = '''\
from rlaif_sdk import view


def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: The first.
        b: The second.
    """
    return a + b


def bare(a, b):
    return a + b


def undescribed(a: int) -> int:
    return a


def right(completions, total):
    return [float(view(said, "answer") == str(want)) for said, want in zip(completions, total)]


def peeks(completions, environments):
    return [0.0] * len(completions)


several = [add]
number = 3


class Till:
    """Adds up what is bought."""

    def reset(self, total: int, **_) -> str:
        self.owed, self.paid = total, 0
        return f" You owe {total}."

    def pay(self, amount: int) -> str:
        """Pay.

        Args:
            amount: How much.
        """
        self.paid += amount
        return f"{self.paid} paid"

    def get_reward(self) -> float:
        return self.paid / self.owed


class Dice:
    """Whose tools know nothing of the rollout."""

    def reset(self, **_) -> None:
        pass

    @staticmethod
    def roll() -> int:
        """Roll a die."""
        return 4

    @staticmethod
    def most(sides: int) -> int:
        """Say what a die shows at most.

        Args:
            sides: How many it has.
        """
        return sides


class Endless:
    def go(self) -> None:
        """Go on."""


def no_environment():
    raise ConnectionError("no server")
'''
SETTINGS = {
    "max_steps": 1,
    "per_device_train_batch_size": 4,
    "per_device_eval_batch_size": 2,
    "num_generations": 2,
    "max_completion_length": 300,
    "use_cpu": True,
}


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    """A run on a tiny Llama that knows bytes, with Qwen3's chat template, and four sums."""
    tiny_llama(vocab_size=300, max_position_embeddings=4096).save_pretrained(tmp_path / "start")
    byte_tokenizer().save_pretrained(tmp_path / "start")
    (tmp_path / "code.py").write_text(CODE)
    rows = [{"prompt": [{"role": "user", "content": f"{n} + 2 = ?"}], "total": n + 2} for n in range(1, 5)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code = f"{tmp_path}/code.py"
    return {
        "model": {"name": str(tmp_path / "start")},
        "data": {"train": str(tmp_path / "sums.jsonl"), "held_out": str(tmp_path / "sums.jsonl")},
        "composition": {"rewards": {"right": {"use": f"{code}:right"}}},
        "tools": [f"{code}:add"],
        "grpo": {**SETTINGS},
        "output": str(tmp_path / "out"),
    }


@pytest.fixture
def calculates(monkeypatch: pytest.MonkeyPatch) -> None:
    """The policy calls the tool that there is for the first number of the prompt, and says what came of it."""

    def said(told: str) -> str:
        if "<tool_response>" in told:
            return told.rpartition("<tool_response>\n")[2].partition("\n")[0].split(" ")[0]
        number = int(told.rpartition("<|im_start|>user\n")[2].split(" ")[0])
        name, arguments = ("pay", {"amount": number}) if '"pay"' in told else ("add", {"a": number, "b": 2})
        return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"

    def answer(trainer: Any, prompt_ids: Sequence[list[int]], *_: Any, **__: Any) -> Any:
        texts = [f"{said(trainer.processing_class.decode(ids))}<|im_end|>" for ids in prompt_ids]
        return trainer.processing_class(texts)["input_ids"], None

    monkeypatch.setattr(trl.GRPOTrainer, "_generate_single_turn", answer)


@pytest.mark.usefixtures("calculates")
@pytest.mark.parametrize("adapter", [False, True])
def test_held_out_prompts_are_answered_with_tools(config: dict[str, Any], adapter: bool) -> None:
    """Before and after training, by the trainer's own loop, also where an adapter has been merged by then."""
    if adapter:
        config["model"]["lora"] = {"r": 2}
    result = train("grpo", load_run("grpo", config))
    assert result.history[0]["tools/call_frequency"] == 1.0
    assert result.history[0]["reward/right/raw_mean"] == 1.0
    for scored in (result.before, result.after):
        assert scored.rewards()["right"].tolist() == [1.0] * 4
        assert not any(scored.answers.truncated)
    samples = [json.loads(line) for line in (result.output / "samples.jsonl").read_text().splitlines()]
    assert [turn["role"] for turn in samples[0]["after"]["completion"]] == ["assistant", "tool", "assistant"]
    assert not [key for entry in result.history for key in entry if key.startswith("eval_")]


@pytest.mark.usefixtures("calculates")
def test_answering_with_tools_leaves_training_as_it_was(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held-out prompts get one answer each, without dropout; then what training draws, does and logs is its own again."""
    within, beside, generate, answer = [], [], trl.GRPOTrainer._generate_single_turn, tools.answer_with_tools

    def watched_generate(trainer: Any, *given: Any, **options: Any) -> Any:
        within.append((trainer.model.training, trainer.num_generations_eval))
        return generate(trainer, *given, **options)

    def watched_answer(trainer: Any, *given: Any, **options: Any) -> Any:
        def state() -> Any:
            return torch.get_rng_state().tolist(), trainer.model.training, trainer.num_generations_eval

        trainer.model.train()
        before = state()
        within.clear()
        found = answer(trainer, *given, **options)
        beside.append((state() == before, set(within), [*trainer._metrics["eval"]]))
        return found

    monkeypatch.setattr(trl.GRPOTrainer, "_generate_single_turn", watched_generate)
    monkeypatch.setattr(tools, "answer_with_tools", watched_answer)
    train("grpo", load_run("grpo", config))
    assert beside == [(True, {(False, 1)}, [])] * 2


@pytest.mark.usefixtures("calculates")
def test_an_environment_s_reward_is_that_of_each_rollout(config: dict[str, Any], tmp_path: Path) -> None:
    """Held-out answers too: what it says is kept with the answer, and scored when the environment has gone on."""
    del config["tools"]
    config |= {"environment": f"{tmp_path}/code.py:Till", "composition": {"rewards": {"environment": {}}}}
    result = train("grpo", load_run("grpo", config))
    paid = [n / (n + 2) for n in range(1, 5)]
    assert result.before.rewards()["environment"].tolist() == pytest.approx(paid)
    assert result.after.rewards()["environment"].tolist() == pytest.approx(paid)
    assert result.history[0]["reward"] == pytest.approx(result.history[0]["reward/environment/raw_mean"])
    assert [prompt[0]["content"] for prompt in result.after.answers.prompts] == [
        f"{n} + 2 = ? You owe {n + 2}." for n in range(1, 5)
    ]
    manifest = json.loads((result.output / "run.json").read_text())
    assert f"{tmp_path}/code.py" in manifest["code"]


@pytest.mark.parametrize(
    ("key", "name", "problem"),
    [
        ("tools", "nothing", r"tools\.0: .*has no attribute 'nothing'.*it has: .*add"),
        ("tools", "number", r"tools\.0: 3 is no function"),
        ("tools", "bare", r"tools\.0: 'bare' is no tool: .*docstring.*give each parameter a type"),
        ("tools", "undescribed", r"tools\.0: 'undescribed' is no tool: "),
        ("environment", "Endless", r"environment: Endless has no method 'reset'.*def reset"),
        ("environment", "number", "environment: is no class of environments"),
        ("environment", "no_environment", "environment: makes no environment: ConnectionError: no server"),
    ],
)
def test_what_is_no_tool_is_refused_before_a_model_loads(
    config: dict[str, Any], tmp_path: Path, key: str, name: str, problem: str
) -> None:
    """With the key and the next step, also by --check."""
    reference = f"{tmp_path}/code.py:{name}"
    config[key] = reference if key == "environment" else [reference]
    with pytest.raises(ConfigError, match=f"(?s){problem}"):
        trainer_settings(load_run("grpo", config))


def test_a_name_may_stand_for_a_list_of_tools(config: dict[str, Any], tmp_path: Path) -> None:
    """As the tools of a verifiers environment are; two of one name are refused."""
    config["tools"] = [f"{tmp_path}/code.py:several"]
    trainer_settings(load_run("grpo", config))
    config["tools"].append(f"{tmp_path}/code.py:add")
    with pytest.raises(ConfigError, match="tools: two tools are called 'add'"):
        trainer_settings(load_run("grpo", config))


def test_a_static_method_of_an_environment_is_a_tool(config: dict[str, Any], tmp_path: Path) -> None:
    """With all of its parameters."""
    loaded = tools.load_tools(load_run("grpo", {**config, "tools": [], "environment": f"{tmp_path}/code.py:Dice"}))
    assert loaded is not None
    told = {schema["function"]["name"]: schema["function"]["parameters"] for schema in loaded.schemas}
    assert {name: [*parameters["properties"]] for name, parameters in told.items()} == {"most": ["sides"], "roll": []}


def test_a_function_that_makes_environments_is_called_once_to_see_what_it_makes(
    config: dict[str, Any], tmp_path: Path
) -> None:
    """Each may cost a container; the run, its check and its settings load the tools again and again."""
    file = tmp_path / "made.py"
    file.write_text(
        "MADE = []\n"
        "class Clock:\n"
        "    def reset(self, **row):\n"
        "        return None\n"
        "    def now(self) -> str:\n"
        '        """The time."""\n'
        "        return 'ten'\n"
        "def clock():\n"
        "    MADE.append(Clock())\n"
        "    return MADE[-1]\n"
    )
    run = load_run("grpo", {**config, "tools": [], "environment": f"{file}:clock"})
    loaded = [tools.load_tools(run) for _ in range(3)]
    assert [one and [schema["function"]["name"] for schema in one.schemas] for one in loaded] == [["now"]] * 3
    assert len(load_reference(f"{file}:MADE", tmp_path)) == 1


def _checked(config: dict[str, Any], tmp_path: Path) -> str:
    file = tmp_path / "run.json"
    file.write_text(json.dumps(config))
    checked = CliRunner().invoke(train_app, ["grpo", "--config", str(file), "--check"])
    return " ".join(checked.output.split())


def test_the_check_passes_with_tools(config: dict[str, Any], tmp_path: Path) -> None:
    """And calls none of them."""
    assert "Nothing keeps this from starting." in _checked(config, tmp_path)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("no place", "its chat template has no place for tool calls and their results"),
        ("unknown", "TRL cannot tell a tool call in what this model says"),
        ("text", "the prompts are text, and tools are called in a conversation"),
        ("peeks", "'peeks' reads the environments, which have gone on when held-out answers are scored"),
        ("alone", "'environment' is what an environment says, and the run has none"),
    ],
)
def test_the_check_finds_what_would_keep_tools_from_being_called(
    config: dict[str, Any], tmp_path: Path, change: str, problem: str
) -> None:
    """A template without tools or one that TRL does not know, text prompts, rewards without their environment."""
    start = tmp_path / "start"
    tokenizer = byte_tokenizer()
    if change == "no place":
        tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        tokenizer.save_pretrained(start)
    elif change == "unknown":
        tokenizer.chat_template += "{# of our own #}"
        tokenizer.save_pretrained(start)
    elif change == "text":
        (tmp_path / "sums.jsonl").write_text('{"prompt": "1 + 2 = ?", "total": 3}\n' * 4)
    else:
        use = {"use": f"{tmp_path}/code.py:peeks"} if change == "peeks" else {}
        config["composition"]["rewards"] = {"environment" if change == "alone" else "peeks": use}
    assert problem in _checked(config, tmp_path)
