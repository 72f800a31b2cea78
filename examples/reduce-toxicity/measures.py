"""Toxicity before and after on held-out prompts, and the signs that its fall was bought with worse answers.

B answers, T tokens.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rlaif_sdk import view
from rlaif_sdk.statistics.estimates import paired_change, sample_mean
from rlaif_sdk.training.generation import Answers

if TYPE_CHECKING:
    from rlaif_sdk.training.generation import ScoredAnswers
    from rlaif_sdk.training.online import PolicyResult

Array = NDArray[np.float64]

TOXICITY, REWARD = "toxicity", "nontoxic logit (the reward)"
_CONTENT_WORD = re.compile(r"[a-z]{4,}")
_BATCH = 8

LIKELIHOOD_ROWS = 96
"""Of so many answers the log-probabilities are taken: on a CPU that takes longer than all the rest of the measures."""


def measure(result: PolicyResult, start: str, temperature: float) -> dict[str, Any]:
    """All measures of a run as JSON values.

    Args:
        result: What came of the run.
        start: Folder or name of the model that it started from.
        temperature: At which answers were sampled.
    """
    before, after = measures(result.before), measures(result.after)
    answers = [first(scored.answers, LIKELIHOOD_ROWS) for scored in (result.before, result.after)]
    old_B, new_B = (logprobs(start, some, temperature) for some in answers)
    trained_B = logprobs(str(result.model_folder), answers[1], temperature)
    for values, logprobs_B, some in zip((before, after), (old_B, new_B), answers, strict=True):
        values["surprise to the starting model (nats a token)"] = -logprobs_B / token_counts(some)
    texts = [
        [view(answer, "assistant") or "" for answer in scored.answers.completions]
        for scored in (result.before, result.after)
    ]
    return {
        "prompts": len(result.before.answers.prompts),
        "optimiser_steps": result.steps,
        "training_seconds": round(result.training_seconds),
        "measures": {name: compared(values_B, after[name]) for name, values_B in before.items()},
        "divergence (nats an answer)": sample_mean(trained_B - new_B).to_dict(),
        "distinct word pairs (share)": {
            "before": distinct_pairs(texts[0]),
            "after": distinct_pairs(texts[1]),
        },
    }


def measures(scored: ScoredAnswers) -> dict[str, Array]:
    """(B,) values of each measure that needs the answers and their scores alone."""
    toxicity, second = (scored.composition.rewards.get(name) for name in ("toxicity", "second_opinion"))
    if toxicity is None:
        raise SystemExit("the composition has no reward named 'toxicity'")
    scores = [toxicity.score(row) for row in range(len(toxicity.raw))]
    toxic_B = np.array([score.details["toxic_probability"] if score else math.nan for score in scores])
    values = {TOXICITY: toxic_B, "toxic (share)": _above_half(toxic_B), REWARD: toxicity.raw}
    if second is not None:
        doubted_B = 1 / (1 + np.exp(second.raw))
        values |= {"second opinion": doubted_B, "second opinion, toxic (share)": _above_half(doubted_B)}
    texts = [view(completion, "assistant") or "" for completion in scored.answers.completions]
    dialogues = scored.answers.columns["dialogue"]
    return {
        **values,
        **scored.health(),
        "empty (share)": np.array([float(not text.strip()) for text in texts]),
        "words of the dialogue (share)": np.array([shared_words(*pair) for pair in zip(texts, dialogues, strict=True)]),
    }


def compared(before_B: Array, after_B: Array) -> dict[str, Any]:
    """Mean and standard deviation of both, and the mean paired change with its 95% confidence interval (normal)."""
    change = paired_change(before_B, after_B)
    margin = 1.96 * change.standard_error
    return {
        "before": {"mean": float(np.nanmean(before_B)), "std": float(np.nanstd(before_B, ddof=1))},
        "after": {"mean": float(np.nanmean(after_B)), "std": float(np.nanstd(after_B, ddof=1))},
        "change": {"mean": change.mean, "low": change.mean - margin, "high": change.mean + margin, "n": change.n},
    }


def shared_words(answer: str, dialogue: str) -> float:
    """Share of an answer's words of four letters and more that the dialogue has too; NaN without any such word."""
    words = set(_CONTENT_WORD.findall(answer.lower()))
    return len(words & set(_CONTENT_WORD.findall(dialogue.lower()))) / len(words) if words else math.nan


def distinct_pairs(texts: Sequence[str]) -> float:
    """Share of all pairs of neighbouring words that differ from every other; low where all answers are alike."""
    found = [pair for text in texts for pair in pairwise(text.lower().split())]
    return len(set(found)) / len(found) if found else 0.0


def first(answers: Answers, rows: int) -> Answers:
    """The first so many answers."""
    return Answers(
        prompts=answers.prompts[:rows],
        completions=answers.completions[:rows],
        completion_ids=answers.completion_ids[:rows],
        truncated=answers.truncated[:rows],
        columns={name: values[:rows] for name, values in answers.columns.items()},
    )


def token_counts(answers: Answers) -> Array:
    """(B,) how many tokens each answer has."""
    return np.array([len(ids) for ids in answers.completion_ids], dtype=np.float64)


def logprobs(model_name: str, answers: Answers, temperature: float) -> Array:
    """(B,) log-probability in nats of each answer to its prompt, under a model that samples at a temperature."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(model_name)
    model: Any = AutoModelForCausalLM.from_pretrained(model_name, dtype="auto")
    model.eval()
    template = {"add_generation_prompt": True, "tokenize": True, "return_dict": True}
    prompt_ids = [tokenizer.apply_chat_template(prompt, **template)["input_ids"] for prompt in answers.prompts]
    return sequence_logprobs(model, prompt_ids, answers.completion_ids, temperature)


def sequence_logprobs(
    model: Any, prompt_ids: Sequence[Sequence[int]], completion_ids: Sequence[Sequence[int]], temperature: float
) -> Array:
    """(B,) log-probabilities of completions, in batches that end together."""
    import torch

    sums: list[float] = []
    for start in range(0, len(prompt_ids), _BATCH):
        completions = completion_ids[start : start + _BATCH]
        rows = [[*prompt, *ids] for prompt, ids in zip(prompt_ids[start : start + _BATCH], completions, strict=True)]
        length = max(map(len, rows))
        ids_BT = torch.tensor([[0] * (length - len(row)) + row for row in rows])
        mask_BT = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
        positions_BT = (mask_BT.cumsum(-1) - 1).clamp(min=0)
        kept = max(map(len, completions))
        with torch.inference_mode():
            output = model(input_ids=ids_BT, attention_mask=mask_BT, position_ids=positions_BT, logits_to_keep=kept + 1)
        logprobs_BTV = torch.log_softmax(output.logits[:, :-1].float() / temperature, dim=-1)
        chosen_BT = logprobs_BTV.gather(-1, ids_BT[:, -kept:, None])[..., 0]
        sums += [float(row_T[kept - len(ids) :].sum()) for row_T, ids in zip(chosen_BT, completions, strict=True)]
    return np.array(sums)


def table(results: Mapping[str, Any]) -> str:
    """The measures as a Markdown table."""
    lines = ["| | before | after | paired change (95% interval) |", "|---|---|---|---|"]
    for name, row in results["measures"].items():
        old, new, change = row["before"], row["after"], row["change"]
        lines.append(
            f"| {name} | {old['mean']:.3f} ± {old['std']:.3f} | {new['mean']:.3f} ± {new['std']:.3f} "
            f"| {change['mean']:+.3f} ({change['low']:+.3f} to {change['high']:+.3f}) |"
        )
    pairs, divergence = results["distinct word pairs (share)"], results["divergence (nats an answer)"]
    lines.append(f"| distinct word pairs, of all answers (share) | {pairs['before']:.3f} | {pairs['after']:.3f} | |")
    lines.append(f"| divergence from the starting model (nats an answer) | 0 | {divergence['mean']:.2f} | |")
    return "\n".join(lines)


def _above_half(chance_B: Array) -> Array:
    return np.where(np.isnan(chance_B), np.nan, (chance_B > 0.5).astype(np.float64))
