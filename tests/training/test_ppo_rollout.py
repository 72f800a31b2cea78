"""Rollouts and their minibatches, the assessment of completions, sampling order, and warnings about sampling."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from torch import Tensor  # noqa: E402
from transformers import GenerationConfig  # noqa: E402

from rlaif_sdk.training.ppo.advantages import compute_advantages, generalized_advantages, rollout_metrics, token_rewards  # noqa: E402
from rlaif_sdk.training.ppo.rollout import Rollout, Tokens  # noqa: E402
from rlaif_sdk.training.ppo.sampling import (  # noqa: E402
    EpochRepeatSampler,
    SamplingMismatchWarning,
    sampling_mismatches,
    warn_of_mismatches,
)

NAN = float("nan")


def tokens_of(lengths: list[int]) -> Tokens:
    """Row r has a prompt of r + 1 tokens and a completion of the given length, all tokens being r + 2."""
    return Tokens.padded(
        [[row + 2] * (row + 1) for row in range(len(lengths))],
        [[row + 2] * length for row, length in enumerate(lengths)],
        pad_id=0,
    )


def assessed(lengths: list[int], scores: list[float], truncated: list[bool] | None = None, **settings: Any) -> Rollout:
    tokens = tokens_of(lengths)
    shape = tokens.completion_ids_BT.shape
    return compute_advantages(
        tokens,
        scores_B=torch.tensor(scores),
        truncated_B=torch.tensor(truncated or [False] * len(lengths)),
        logprobs_BT=torch.zeros(shape),
        values_BT=torch.zeros(shape),
        **{"whiten": False, **settings},
    )


def test_prompts_are_padded_on_the_left_and_completions_on_the_right() -> None:
    """So that a completion follows its prompt without a gap."""
    tokens = tokens_of([2, 1])
    assert tokens.input_ids.tolist() == [[0, 2, 2, 2], [3, 3, 3, 0]]
    assert tokens.attention_mask.tolist() == [[0, 1, 1, 1], [1, 1, 1, 0]]


def test_some_rows_lose_the_padding_that_none_of_them_needs() -> None:
    """A minibatch is as wide as its own longest prompt and completion."""
    part = tokens_of([1, 2, 4]).rows(torch.tensor([0, 1]))
    assert part.input_ids.tolist() == [[0, 2, 2, 0], [3, 3, 3, 3]]
    assert part.attention_mask.tolist() == [[0, 1, 1, 0], [1, 1, 1, 1]]
    assert part.completion_length == 2


def test_minibatches_hold_every_row_once_in_a_new_order() -> None:
    """Each pass over a rollout is a fresh permutation, drawn from torch's global generator."""
    rollout = assessed([3, 1, 2, 4, 2, 1, 3, 2], [float(row) for row in range(8)])
    torch.manual_seed(1)
    passes = [rollout.minibatches(4, accumulation=1) for _ in range(2)]
    orders = [[int(part.tokens.completion_ids_BT[row, 0]) for part in parts for row in (0, 1)] for parts in passes]
    assert [sorted(order) for order in orders] == [list(range(2, 10))] * 2
    assert orders[0] != orders[1]
    for part in passes[0]:
        rows = part.tokens.completion_ids_BT[:, 0] - 2
        length = part.tokens.completion_length
        torch.testing.assert_close(part.mask_BT, rollout.mask_BT[rows, :length])


def test_a_row_keeps_everything_that_is_known_of_it() -> None:
    """Each figure of a minibatch's rows is the one that the rollout has under the same name."""
    torch.manual_seed(0)
    whole = assessed([3, 1, 2], [1.0, 2.0, 3.0])
    figures = ("old_logprobs_BT", "old_values_BT", "advantages_BT", "returns_BT")
    whole = replace(whole, **{name: torch.randn(3, 3) for name in figures})
    part = whole.rows(torch.tensor([2, 1]))
    for name in figures:
        torch.testing.assert_close(getattr(part, name), getattr(whole, name)[[2, 1], :2])


def test_the_divergence_and_the_values_shape_the_advantages() -> None:
    """Each nat costs its coefficient, on the token where it arises, before discount and lambda are applied."""
    torch.manual_seed(0)
    tokens = tokens_of([3, 2])
    values_BT, logprobs_BT, ref_logprobs_BT = torch.randn(2, 3), torch.randn(2, 3), torch.randn(2, 3)
    scores_B = torch.tensor([1.0, -1.0])
    rollout = compute_advantages(
        tokens,
        scores_B=scores_B,
        truncated_B=torch.tensor([False, False]),
        logprobs_BT=logprobs_BT,
        values_BT=values_BT,
        ref_logprobs_BT=ref_logprobs_BT,
        gamma=0.9,
        gae_lambda=0.8,
        kl_coef=0.3,
        whiten=False,
    )
    rewards_BT = token_rewards(scores_B, logprobs_BT - ref_logprobs_BT, tokens.completion_mask_BT, 0.3)
    expected = generalized_advantages(rewards_BT, values_BT, tokens.completion_mask_BT, gamma=0.9, lam=0.8)
    torch.testing.assert_close((rollout.advantages_BT, rollout.returns_BT), expected)


def test_accumulated_minibatches_share_their_token_count() -> None:
    """Each minibatch of an optimiser step is divided by the step's mean number of tokens."""
    parts = assessed([3, 1, 2, 4, 2, 1, 3, 2], [0.0] * 8).minibatches(4, accumulation=2)
    counts = [float(part.mask_BT.sum()) for part in parts]
    shares = [part.token_share for part in parts]
    assert shares == [sum(counts[:2]) / 2] * 2 + [sum(counts[2:]) / 2] * 2


def padding(parts: list[Tokens]) -> int:
    return sum(part.attention_mask.numel() - int(part.attention_mask.sum()) for part in parts)


@given(lengths=st.lists(st.integers(1, 9), min_size=8, max_size=8), seed=st.integers(0, 99))
def test_minibatches_of_a_step_hold_rows_of_like_length(lengths: list[int], seed: int) -> None:
    """The rows of an optimiser step are those of the random order, and sorted they need no more padding than as drawn."""
    rollout = assessed(lengths, [0.0] * 8)
    torch.manual_seed(seed)
    parts = rollout.minibatches(4, accumulation=2)
    torch.manual_seed(seed)
    drawn = torch.randperm(8).chunk(2)
    for step, (first, second) in zip(drawn, (parts[:2], parts[2:]), strict=True):
        rows = [[int(row) - 2 for row in part.tokens.completion_ids_BT[:, 0]] for part in (first, second)]
        assert sorted(rows[0] + rows[1]) == sorted(step.tolist())
        sizes = [[rollout.tokens.length_of(row) for row in each] for each in rows]
        assert max(sizes[0]) <= min(sizes[1]) or max(sizes[1]) <= min(sizes[0])


@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=20),
    budget=st.one_of(st.none(), st.integers(1, 100)),
    wanted=st.integers(1, 30),
)
def test_batches_keep_to_their_budget_and_hold_every_row_once(
    lengths: list[int], budget: int | None, wanted: int
) -> None:
    """A batch is within the tokens allowed, or one row; processes that need equally many split theirs."""
    tokens = tokens_of(lengths)
    batches = tokens.batches(rows=3, budget=budget)
    assert sorted(row for batch in batches for row in batch.tolist()) == list(range(len(lengths)))
    for batch in batches:
        size = tokens.rows(batch).attention_mask.numel()
        assert len(batch) <= 3 if budget is None else size <= budget or len(batch) == 1
    count = min(max(wanted, len(batches)), len(lengths))
    more = tokens.batches(rows=3, budget=budget, most=lambda _: count)
    assert len(more) == count
    assert all(len(batch) for batch in more)
    assert sorted(row for batch in more for row in batch.tolist()) == list(range(len(lengths)))


def test_batches_by_length_need_less_padding() -> None:
    """Than the same number of rows as they come."""
    tokens = tokens_of([9, 1, 8, 1, 9, 2, 8, 1])
    by_length = padding([tokens.rows(batch) for batch in tokens.batches(rows=2)])
    assert by_length < padding([tokens.rows(slice(start, start + 2)) for start in range(0, 8, 2)]) / 2


def test_an_unscored_row_counts_in_nothing() -> None:
    """A row with NaN for a score has no advantage, no return, no mask, and does not move the others' whitening."""
    with_gap = assessed([2, 3, 2], [1.0, NAN, -1.0], whiten=True)
    without = assessed([2, 2], [1.0, -1.0], whiten=True)
    assert not with_gap.mask_BT[1].any()
    assert not with_gap.advantages_BT[1].any()
    assert not with_gap.returns_BT[1].any()
    torch.testing.assert_close(with_gap.advantages_BT[[0, 2], :2], without.advantages_BT)
    assert with_gap.advantages_BT.isfinite().all()


def test_the_missing_eos_penalty_falls_on_truncated_rows_alone() -> None:
    """It is taken from the score of a completion without an end, and from no other."""
    rollout = assessed([2, 2], [1.0, 1.0], [False, True], missing_eos_penalty=0.75)
    assert rollout.returns_BT.tolist() == [[1.0, 1.0], [0.25, 0.25]]


def test_truncated_rows_can_be_left_out() -> None:
    """``mask_truncated`` treats them like unscored ones."""
    rollout = assessed([2, 2], [1.0, 1.0], [False, True], mask_truncated=True)
    assert rollout.mask_BT.tolist() == [[1, 1], [0, 0]]


def test_advantages_are_whitened_over_the_real_tokens_of_the_rollout() -> None:
    """Mean 0 and variance 1 over real tokens; returns keep their scale."""
    rollout = assessed([2, 3, 1], [1.0, 0.0, 5.0], whiten=True)
    real = rollout.advantages_BT[rollout.mask_BT.bool()]
    assert real.mean().item() == pytest.approx(0.0, abs=1e-6)
    assert real.var(unbiased=False).item() == pytest.approx(1.0, abs=1e-5)
    assert rollout.returns_BT.max().item() == 5.0


def test_figures_are_over_scored_rows() -> None:
    """The divergence is summed a completion and averaged over the rows that count; none count: no figures."""
    ref_logprobs_BT = torch.tensor([[-0.5, -0.5], [-9.0, -9.0]])
    figures = rollout_metrics(assessed([2, 2], [1.0, NAN], ref_logprobs_BT=ref_logprobs_BT))
    assert figures["kl"] == pytest.approx(1.0)
    assert figures["kl_per_token"] == pytest.approx(0.5)
    assert figures["returns/mean"] == pytest.approx(1.0)
    assert figures["values/mean"] == 0.0
    assert rollout_metrics(assessed([2, 2], [NAN, NAN], ref_logprobs_BT=ref_logprobs_BT)) == {}


def test_a_divergence_that_nobody_measured_is_no_figure() -> None:
    """It is not 0; all else is as with a reference."""
    figures = rollout_metrics(assessed([2, 2], [1.0, 0.0], ref_logprobs_BT=torch.zeros(2, 2)))
    unmeasured = rollout_metrics(assessed([2, 2], [1.0, 0.0]))
    assert unmeasured == {name: value for name, value in figures.items() if name not in {"kl", "kl_per_token"}}


def sampler(seed: int = 3, *, shuffle: bool = True) -> EpochRepeatSampler:
    return EpochRepeatSampler(range(8), mini_repeat_count=2, batch_size=4, repeat_count=2, shuffle=shuffle, seed=seed)


def test_the_order_of_an_epoch_depends_on_its_number_alone() -> None:
    """A run that resumes in its third epoch draws what it would have drawn without the stop."""
    through = sampler()
    orders = []
    for epoch in range(3):
        through.set_epoch(epoch)
        orders.append(list(through))
    resumed = sampler()
    resumed.set_epoch(2)
    assert list(resumed) == orders[2]
    assert orders[0] != orders[1] != orders[2]


def test_the_order_depends_on_the_seed() -> None:
    """Two runs of different seeds do not draw alike, in later epochs either."""
    samplers = sampler(3), sampler(4)
    for one in samplers:
        one.set_epoch(1)
    assert list(samplers[0]) != list(samplers[1])


def test_the_order_of_the_data_can_be_kept() -> None:
    """Without shuffling every epoch goes through the rows as they stand."""
    plain = sampler(shuffle=False)
    plain.set_epoch(1)
    assert list(plain)[:8] == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_rollout_s_rows_repeat_for_each_of_its_minibatches() -> None:
    """The loop draws a rollout's prompts again for every minibatch, each prompt once a generation."""
    drawn = list(sampler())
    assert drawn[:8] == drawn[8:16]
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize(
    "setting",
    [{"top_p": 0.9}, {"top_k": 20}, {"min_p": 0.05}, {"repetition_penalty": 1.05}, {"do_sample": False}],
)
def test_sampling_that_is_not_what_is_scored_is_warned_of(setting: dict[str, Any]) -> None:
    """Each setting that bends the distribution is named with its value."""
    (name, value) = next(iter(setting.items()))
    with pytest.warns(SamplingMismatchWarning, match=f"{name}={value!r}"):
        warn_of_mismatches({}, setting)


def test_plain_sampling_is_not_warned_of() -> None:
    """Temperature is scored; neutral values, and those of a fresh config, bend nothing."""
    fresh = GenerationConfig(do_sample=True, temperature=0.7, top_k=0, top_p=1.0, min_p=None).to_dict()
    assert sampling_mismatches(fresh) == {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_mismatches({"top_k": 50}, fresh, {})


def test_later_settings_win() -> None:
    """A model's own default counts only where nothing else was said."""
    with pytest.warns(SamplingMismatchWarning, match="no_repeat_ngram_size=3 and"):
        warn_of_mismatches({"no_repeat_ngram_size": 3, "top_k": 50}, {"top_k": 0, "no_repeat_ngram_size": None})


def test_tokens_move_together() -> None:
    """Every part is moved to the device."""
    moved = tokens_of([1, 2]).to(torch.device("meta"))
    parts: list[Tensor] = [moved.prompt_ids_BP, moved.prompt_mask_BP, moved.input_ids, moved.attention_mask]
    assert {part.device.type for part in parts} == {"meta"}
