"""PPO whose next rollout is drawn while this one is learnt from, by a double of a vLLM server with weights of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from statistics import fmean
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from datasets import Dataset, concatenate_datasets  # noqa: E402
from transformers import AutoModelForCausalLM, TrainerCallback  # noqa: E402
from trl.generation import vllm_generation  # noqa: E402
from trl.generation.vllm_generation import VLLMGeneration  # noqa: E402

from rlaif_sdk.exceptions import ConfigError  # noqa: E402
from rlaif_sdk.training.ppo import PPOConfig, PPOTrainer  # noqa: E402
from rlaif_sdk.training.ppo.ahead import BatchesAhead  # noqa: E402
from rlaif_sdk.training.ppo.rollout import Tokens  # noqa: E402
from tests.training.test_ppo_learns import COMPLETION_LENGTH, wanted_words_minus_length  # noqa: E402

Make = Callable[..., PPOTrainer]
Load = Callable[[str], Any]

SETTINGS: dict[str, Any] = {"use_vllm": True, "vllm_mode": "server", "one_step_off_policy": True}
EOS, PAD = 1, 0


class ServerDouble(VLLMGeneration):
    """A model of its own, which gets the policy's weights at a sync, and draws and says with what probability."""

    def _init_vllm(self) -> None:
        self.server = AutoModelForCausalLM.from_pretrained(self.model.name_or_path).eval()
        self.syncs = 0
        self.drawn_by: list[tuple[str, int, list[list[int]]]] = []
        self.hold: Callable[[], object] = lambda: None
        self.noise = torch.Generator().manual_seed(0)

    def sync_weights(self) -> None:
        self.syncs += 1
        self.server.load_state_dict(self.model.state_dict())

    def logprobs_of(self, tokens: Tokens) -> Any:
        with torch.no_grad():
            logits = self.server(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).logits
        logprobs = (logits[:, -tokens.completion_length - 1 : -1] / self.temperature).log_softmax(-1)
        return logprobs.gather(2, tokens.completion_ids_BT[..., None])[..., 0]

    def generate(self, prompts: Any, images: Any, num_generations: int, profiler: Any = None) -> Any:
        del images, num_generations, profiler
        self.hold()
        self.drawn_by.append((threading.current_thread().name, self.syncs, prompts))
        rows = [list(ids) for ids in prompts]
        completions: list[list[int]] = [[] for _ in prompts]
        for _ in range(self.max_completion_length):
            tokens = Tokens.padded(rows, [[PAD]] * len(rows), pad_id=PAD)
            with torch.no_grad():
                logits = self.server(input_ids=tokens.prompt_ids_BP, attention_mask=tokens.prompt_mask_BP).logits
            drawn = torch.multinomial((logits[:, -1] / self.temperature).softmax(-1), 1, generator=self.noise)[:, 0]
            for row, token in enumerate(drawn.tolist()):
                if EOS not in completions[row]:
                    completions[row].append(token)
                rows[row].append(token)
        said = self.logprobs_of(Tokens.padded(prompts, completions, pad_id=PAD))
        return (
            None,
            completions,
            [[[x] for x in said[row, : len(ids)].tolist()] for row, ids in enumerate(completions)],
            None,
        )


@pytest.fixture(autouse=True)
def _double(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trl.trainer.rloo_trainer.VLLMGeneration", ServerDouble)
    monkeypatch.setattr(vllm_generation, "is_vllm_available", lambda: True)


def rollouts_of(trainer: PPOTrainer) -> list[Any]:
    """Where the trainer's training rollouts are put as they are made."""
    collect, made = trainer._collect, []

    def collecting(rows: Any, *rest: Any) -> Any:
        rollout = collect(rows, *rest)
        if trainer.model.training:
            made.append(rollout)
        return rollout

    trainer._collect = collecting  # type: ignore[method-assign]
    return made


class AtStepEnd(TrainerCallback):
    """Says when a step has been made."""

    def __init__(self) -> None:
        self.made = threading.Event()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        del args, state, control, kwargs
        self.made.set()


def test_the_next_rollout_is_drawn_while_this_one_is_learnt_from(make_trainer: Make, load_model: Load) -> None:
    """What is drawn ahead is not ready before a step has been made of the rollout before."""
    stepped = AtStepEnd()
    trainer = make_trainer(load_model("llama"), max_steps=4, callbacks=[stepped], **SETTINGS)
    engine = trainer.vllm_generation

    def wait_for_a_step() -> None:
        if len(engine.drawn_by) == 1:  # the second
            assert stepped.made.wait(60), "the trainer waits for it"

    engine.hold = wait_for_a_step
    trainer.train()
    assert [name.startswith("rollout") for name, *_ in engine.drawn_by] == [False, True]


def test_it_is_drawn_by_the_policy_of_one_rollout_ago_and_weighed_so(
    make_trainer: Make, load_model: Load, prompts: Any
) -> None:
    """The second rollout by the first's weights, the third by the second's; each with the probabilities of its drawing."""
    many = concatenate_datasets([prompts, prompts])
    trainer = make_trainer(
        load_model("llama"), wanted_words_minus_length, train_dataset=many, max_steps=6, learning_rate=2e-2, **SETTINGS
    )
    made, engine = rollouts_of(trainer), trainer.vllm_generation
    trainer.train()
    assert [syncs for _, syncs, _ in engine.drawn_by] == [1, 1, 2]
    first, second, third = made
    for rollout, apart in ((first, False), (second, True), (third, True)):
        distance_BT = (rollout.old_logprobs_BT - rollout.drawn_logprobs_BT).abs() * rollout.mask_BT
        assert (distance_BT.max() > 1e-2) == apart
    prompts = [prompts for _, _, prompts in engine.drawn_by]
    for rollout, asked in zip(made, prompts, strict=True):
        assert [
            ids[-len(own) :] for ids, own in zip(rollout.tokens.prompt_ids_BP.tolist(), asked, strict=True)
        ] == asked
    logged = [entry for entry in trainer.state.log_history if "sampling/sampling_logp_difference/mean" in entry]
    assert logged[0]["sampling/sampling_logp_difference/mean"] < 1e-5
    assert logged[1]["sampling/sampling_logp_difference/mean"] > 1e-3


def test_the_prompts_are_those_of_a_run_that_draws_when_it_needs_to(make_trainer: Make, load_model: Load) -> None:
    """In their order, over the end of an epoch, where nothing is drawn ahead, with several passes and accumulation."""
    shape = {
        "max_steps": 8,
        "per_device_train_batch_size": 2,
        "steps_per_generation": 4,
        "gradient_accumulation_steps": 2,
    }
    found = {}
    for ahead in (False, True):
        settings = {**SETTINGS, "one_step_off_policy": ahead, "num_iterations": 2, "num_generations": 2, **shape}
        trainer = make_trainer(load_model("llama"), **settings, train_dataset=Dataset.from_dict(
            {"prompt": ["w1", "w2 w3", "w4", "w5 w6", "w7", "w8", "w9", "w10 w11"], "wanted": ["w1"] * 8}
        ))  # fmt: skip
        trainer.train()
        found[ahead] = trainer.vllm_generation.drawn_by
    assert [prompts for *_, prompts in found[True]] == [prompts for *_, prompts in found[False]]
    assert [name.startswith("rollout") for name, *_ in found[True]] == [False, True]
    assert len(found[True]) == 2, "and nothing that no step is left for"


def test_an_evaluation_between_is_by_the_policy_as_it_is(make_trainer: Make, load_model: Load, prompts: Any) -> None:
    """It waits until nothing is drawn, sends its weights, and leaves what was drawn ahead to training."""
    trainer = make_trainer(
        load_model("llama"),
        wanted_words_minus_length,
        eval_dataset=prompts.select(range(4)),
        eval_strategy="steps",
        eval_steps=1,
        max_steps=4,
        learning_rate=2e-2,
        **SETTINGS,
    )
    made, engine = rollouts_of(trainer), trainer.vllm_generation
    trainer.train()
    assert [(name.startswith("rollout"), syncs) for name, syncs, _ in engine.drawn_by] == [
        (False, 1), (True, 1), (False, 2), (False, 3), (False, 4), (False, 5)
    ]  # fmt: skip
    assert len(made) == 2
    assert (made[1].old_logprobs_BT - made[1].drawn_logprobs_BT).abs().max() > 1e-2


def test_what_fails_in_the_server_ends_the_run(make_trainer: Make, load_model: Load) -> None:
    """With its own error, when the rollout is needed."""
    trainer = make_trainer(load_model("llama"), max_steps=4, **SETTINGS)
    engine = trainer.vllm_generation

    def fail_ahead() -> None:
        if threading.current_thread().name.startswith("rollout"):
            raise ConnectionError("the server is gone")

    engine.hold = fail_ahead
    with pytest.raises(ConnectionError, match="the server is gone"):
        trainer.train()
    assert trainer.state.global_step == 2


@pytest.mark.parametrize(
    ("settings", "key", "hint"),
    [
        ({"use_vllm": False}, "use_vllm", "set use_vllm: true"),
        ({"vllm_mode": "colocate"}, "vllm_mode", "set vllm_mode: server"),
        ({"vllm_importance_sampling_correction": False}, "vllm_importance_sampling_correction", "correction: true"),
    ],
)
def test_it_needs_a_server_and_the_correction(settings: dict[str, Any], key: str, hint: str) -> None:
    """Each with its reason and what to set."""
    with pytest.raises(ConfigError, match="one_step_off_policy") as caught:
        PPOConfig("run", report_to=[], use_cpu=True, **{**SETTINGS, **settings})
    assert caught.value.key == key
    assert hint in str(caught.value.hint)


def test_batches_can_be_seen_before_they_come() -> None:
    """Each comes once and in order; one that an epoch has no more is None; another iterator is another epoch."""
    view = BatchesAhead()
    epoch: Iterator[int] = iter(range(5))
    assert next(view.of(epoch)) == 0
    assert view.peek(2) == 3
    assert [next(view.of(epoch)) for _ in range(2)] == [1, 2]
    assert view.peek(2) is None
    assert list(view.of(epoch)) == [3, 4]
    assert next(view.of(iter("ab"))) == "a"


@pytest.mark.slow
def test_a_policy_learns_from_what_an_older_one_drew(make_trainer: Make, load_model: Load) -> None:
    """The task of ``test_ppo_learns``, 40 rollouts, as far as it comes there when each rollout is its own."""
    prompts = Dataset.from_dict({"prompt": [f"w{row % 28} w{row * 5 % 28}" for row in range(256)]})
    trainer = make_trainer(
        load_model("llama"),
        wanted_words_minus_length,
        train_dataset=prompts,
        per_device_train_batch_size=32,
        max_completion_length=COMPLETION_LENGTH,
        max_steps=80,
        lr_scheduler_type="constant",
        kl_coef=0.0,
        **SETTINGS,
    )
    trainer.train()
    rewards = [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]
    print(f"{fmean(rewards[17:20]):.3f} after 20, {fmean(rewards[37:40]):.3f} after 40")  # noqa: T201 - for runs with -s
    assert rewards[0] < 0.15
    assert fmean(rewards[37:40]) > 0.7
