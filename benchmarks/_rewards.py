"""Four cheap rewards of the kind that people write, and batches of text for them."""

from __future__ import annotations

import random
import re

from rlaif_sdk import RewardBatch

WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")
FORMAT = re.compile(r"\A\s*<think>.*?</think>\s*<answer>.*?</answer>\s*\Z", re.DOTALL)
SYLLABLES = ("ka", "ri", "to", "men", "sa", "lu", "ver", "in", "dro", "pel", "qui", "na", "sor", "tem", "bal", "os")


def conciseness(prompts: list[str], completions: list[str], **columns: object) -> list[float]:
    """1 at 60 words, falling by 1 for every 60 words off."""
    return [1 - abs(len(WORD.findall(text)) - 60) / 60 for text in completions]


def repetition(prompts: list[str], completions: list[str], **columns: object) -> list[float]:
    """The share of trigrams that are new, less 1."""
    scores = []
    for text in completions:
        words = WORD.findall(text.lower())
        trigrams = list(zip(words, words[1:], words[2:], strict=False))
        scores.append(len(set(trigrams)) / len(trigrams) - 1 if trigrams else 0.0)
    return scores


def answer_format(prompts: list[str], completions: list[str], **columns: object) -> list[float]:
    """1 where the completion thinks and then answers, in tags."""
    return [1.0 if FORMAT.match(text) else 0.0 for text in completions]


def relevance(prompts: list[str], completions: list[str], **columns: object) -> list[float]:
    """The share of the prompt's words that the completion takes up."""
    scores = []
    for prompt, text in zip(prompts, completions, strict=True):
        asked = set(WORD.findall(prompt.lower()))
        scores.append(len(asked & set(WORD.findall(text.lower()))) / len(asked) if asked else 0.0)
    return scores


FUNCTIONS = {"conciseness": conciseness, "repetition": repetition, "format": answer_format, "relevance": relevance}
WEIGHTS = {"conciseness": 1.0, "repetition": 0.5, "format": 2.0, "relevance": 1.0}


def text_batch(rows: int, *, per_prompt: int = 8, seed: int = 0) -> RewardBatch:
    """Completions of 20 to 150 invented words, several to a prompt."""
    draw = random.Random(seed)
    vocabulary = ["".join(draw.choices(SYLLABLES, k=draw.randint(1, 4))) for _ in range(5000)]

    def sentence(words: int) -> str:
        return " ".join(draw.choices(vocabulary, k=words)).capitalize() + "."

    prompts = [sentence(12) for _ in range(-(-rows // per_prompt))]
    completions = []
    for _ in range(rows):
        text = " ".join(sentence(draw.randint(5, 15)) for _ in range(draw.randint(4, 10)))
        completions.append(f"<think>{text}</think><answer>{sentence(3)}</answer>" if draw.random() < 0.5 else text)
    return RewardBatch(
        prompts=[prompts[row // per_prompt] for row in range(rows)],
        completions=completions,
        group=[row // per_prompt for row in range(rows)],
    )
