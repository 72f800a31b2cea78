"""PPO whose completions a real vLLM makes, in the same process, as TRL colocates it: ``nox -s vllm``, on a CPU."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")
pytest.importorskip("vllm", reason="vLLM is not installed; nox -s vllm brings one for CPUs")

from peft import LoraConfig  # noqa: E402
from trl.generation import vllm_generation  # noqa: E402
from vllm import SamplingParams, _custom_ops  # noqa: E402
from vllm.distributed import cleanup_dist_env_and_memory  # noqa: E402
from vllm.platforms import current_platform  # noqa: E402

from rlaif_sdk.training.ppo import PPOTrainer  # noqa: E402
from rlaif_sdk.training.ppo.critic import without_critic  # noqa: E402
from rlaif_sdk.training.ppo.rollout import Rollout  # noqa: E402

Make = Callable[..., PPOTrainer]
Load = Callable[[str], Any]

pytestmark = pytest.mark.timeout(240)

SETTINGS: dict[str, Any] = {"use_vllm": True, "vllm_mode": "colocate", "vllm_max_model_length": 64}
QUESTIONS = [[6], [7, 8], [9, 10, 11], [12, 13, 14, 15]]


def lora(model: Any) -> LoraConfig:
    return LoraConfig(r=4, target_modules="all-linear", fan_in_fan_out=model.config.model_type == "gpt2")


@pytest.fixture(autouse=True)
def _real_vllm(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A vLLM for CPUs that computes as the policy does, and whose weights can be replaced.

    TRL has no setting for either. vLLM runs float32 weights in bfloat16; and on a CPU it packs them for oneDNN, where
    ``load_weights`` does not reach them.
    """
    if not current_platform.is_cpu():
        pytest.skip("this vLLM was not built for CPUs")
    monkeypatch.setattr(_custom_ops, "_supports_onednn", False)
    exactly = functools.partial(vllm_generation.LLM, dtype="float32", enforce_eager=True)
    monkeypatch.setattr(vllm_generation, "LLM", exactly)
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):  # TRL sets them for vLLM
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    yield
    cleanup_dist_env_and_memory()


class Watched:
    """A trainer, what vLLM answered in each rollout, and what PPO made of it."""

    def __init__(self, trainer: PPOTrainer) -> None:
        self.trainer = trainer
        self.engine = trainer.vllm_generation
        self.answers: list[tuple[list[list[int]], list[list[list[float]]]]] = []
        self.rollouts: list[Rollout] = []
        generate, collect = self.engine.generate, trainer._collect

        def watched_generate(**arguments: Any) -> Any:
            answer = generate(**arguments)
            self.answers.append((answer[1], answer[2]))
            return answer

        def watched_collect(rows: Any, counted: int | None = None) -> Rollout:
            self.rollouts.append(collect(rows, counted))
            return self.rollouts[-1]

        self.engine.generate = watched_generate
        trainer._collect = watched_collect

    def answers_greedily(self) -> list[list[int]]:
        asked = [{"prompt_token_ids": ids} for ids in QUESTIONS]
        answers = self.engine.llm.generate(asked, SamplingParams(temperature=0, max_tokens=8), use_tqdm=False)
        return [list(answer.outputs[0].token_ids) for answer in answers]

    def policy_answers_greedily(self) -> list[list[int]]:
        self.trainer.model.eval()
        answers = []
        for ids in QUESTIONS:
            inputs = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
            answer = self.trainer.model.generate(**inputs, do_sample=False, max_new_tokens=8)
            answers.append(answer[0, len(ids) :].tolist())
        self.trainer.model.train()
        return answers


@pytest.mark.parametrize(
    ("kind", "critic", "adapter"),
    [("llama", "shared", False), ("llama", "separate", True), ("gpt2", "separate", False), ("gpt2", "shared", True)],
)
def test_vllm_draws_from_the_policy_as_it_is(
    make_trainer: Make, load_model: Load, prompts: Any, kind: str, critic: str, adapter: bool
) -> None:
    """In every rollout, and in evaluation, vLLM's tokens and log-probabilities are those that PPO goes by; in the end
    it answers as the trained model does, and as it did not before."""
    model = load_model(kind)
    trainer = make_trainer(
        model,
        eval_dataset=prompts.select(range(4)),
        peft_config=lora(model) if adapter else None,
        critic=critic,
        max_steps=6,
        learning_rate=2e-2,
        temperature=0.8,
        **SETTINGS,
    )
    watched = Watched(trainer)
    before = watched.answers_greedily()
    assert before == watched.policy_answers_greedily()
    trainer.train()
    trainer.evaluate()

    assert len(watched.rollouts) == len(watched.answers) == 4
    for rollout, (ids, logprobs) in zip(watched.rollouts, watched.answers, strict=True):
        tokens = rollout.tokens
        for row, (row_ids, row_logprobs) in enumerate(zip(ids, logprobs, strict=True)):
            length = len(row_ids)
            assert tokens.completion_ids_BT[row, :length].tolist() == list(row_ids)
            assert int(tokens.completion_mask_BT[row].sum()) == length
            drawn = torch.tensor([of_token[0] for of_token in row_logprobs])
            torch.testing.assert_close(rollout.old_logprobs_BT[row, :length], drawn, atol=1e-3, rtol=0)
            assert rollout.drawn_logprobs_BT is not None
            torch.testing.assert_close(rollout.drawn_logprobs_BT[row, :length], drawn)

    first = watched.rollouts[0]
    now = trainer._score(trainer.model, first.tokens).logprobs_BT
    assert ((now - first.old_logprobs_BT) * first.mask_BT).abs().max() > 0.1, "the policy moved"
    answers = watched.answers_greedily()
    assert answers == watched.policy_answers_greedily()
    assert answers != before


def test_vllm_ends_completions_where_the_trainer_does(make_trainer: Make, load_model: Load, tokenizer: Any) -> None:
    """Also at an end token that the folder which vLLM loaded does not know of."""
    model = load_model("llama")
    tokenizer.eos_token = "w3"
    ends = {1, tokenizer.eos_token_id}
    trainer = make_trainer(model, max_completion_length=24, max_steps=4, learning_rate=1e-5, **SETTINGS)
    watched = Watched(trainer)
    trainer.train()
    completions = [list(ids) for ids, _ in watched.answers for ids in ids]
    assert {ids[-1] for ids in completions} >= {tokenizer.eos_token_id}
    assert not any(ends & set(ids[:-1]) for ids in completions)
    cut = [len(ids) for ids in completions if ids[-1] not in ends]
    assert set(cut) <= {24}


def test_what_the_critic_knows_is_refused_by_vllm(make_trainer: Make, load_model: Load) -> None:
    """The reason to take the critic off while weights are sent: vLLM loads no weight that it has no place for."""
    trainer = make_trainer(load_model("llama"), **SETTINGS)
    with without_critic(trainer._policy):
        trainer.vllm_generation.sync_weights()
    with pytest.raises((ValueError, KeyError), match="value_head"):
        trainer.vllm_generation.sync_weights()
