"""The contract checks for normalizers, aggregators and judge backends: ours pass, and each broken promise is named."""

from __future__ import annotations

import numpy as np
import pytest

from rlaif_sdk import (
    Aggregator,
    AggregatorSpec,
    GeneratedText,
    JudgeBackendSpec,
    JudgeResponseError,
    LabelLogprobs,
    Normalizer,
    NormalizerSpec,
)
from rlaif_sdk.composer import builtin
from rlaif_sdk.testing import (
    ScriptedJudge,
    check_aggregator_contract,
    check_judge_backend_contract,
    check_normalizer_contract,
)

PARAMS = {"product": {"mapping": "softplus"}, "fixed_zscore": {"mean": 0.4, "std": 0.2}}


@pytest.mark.parametrize("spec", builtin.rlaif_normalizers(), ids=lambda spec: spec.name)
def test_the_sdks_normalizers_keep_the_contract(spec: NormalizerSpec) -> None:
    """What is asked of a stranger holds for ours."""
    check_normalizer_contract(spec, params=PARAMS.get(spec.name))


@pytest.mark.parametrize("spec", builtin.rlaif_aggregators(), ids=lambda spec: spec.name)
def test_the_sdks_aggregators_keep_the_contract(spec: AggregatorSpec) -> None:
    """What is asked of a stranger holds for ours."""
    check_aggregator_contract(spec, params=PARAMS.get(spec.name))


def normalizer(function) -> NormalizerSpec:
    class Broken(Normalizer):
        def normalize(self, values_B, group_B):
            return function(values_B)

    return NormalizerSpec(name="broken", factory=lambda _: Broken(), description="breaks a promise")


@pytest.mark.parametrize(
    ("function", "promise"),
    [
        (np.nan_to_num, "gives a missing score the value"),
        (lambda values_B: values_B[:-1], "gives .* for .* scores"),
        (np.sort, "gives a missing score"),
        (lambda values_B: values_B / 0.0, "loses scores, or makes them infinite"),
        (lambda values_B: values_B + np.arange(len(values_B)), "depends on the order"),
        (lambda values_B: np.multiply(values_B, 2, out=values_B), "changes the scores"),
    ],
)
def test_a_normalizer_that_breaks_a_promise_is_named(function, promise: str) -> None:
    """The failure says which promise."""
    with np.errstate(all="ignore"), pytest.raises(AssertionError, match=f"broken.*{promise}"):
        check_normalizer_contract(normalizer(function))


def test_a_normalizer_that_forgets_at_a_checkpoint_is_named() -> None:
    """Memory that is in no state is a resumed run with other rewards."""

    class Forgets(Normalizer):
        seen = 0.0

        def update(self, values_B, group_B):
            self.seen += float(np.nansum(values_B))

        def normalize(self, values_B, group_B):
            return values_B - self.seen

    spec = NormalizerSpec(name="forgets", factory=lambda _: Forgets(), description="keeps nothing")
    with pytest.raises(AssertionError, match="forgets does not resume"):
        check_normalizer_contract(spec)


@pytest.mark.parametrize(
    ("function", "promise"),
    [
        (lambda v, w: (np.nansum(v, axis=0), v), "a total is NaN where a row has no reward"),
        (lambda v, w: (np.where(np.isnan(v).all(axis=0), np.nan, 1.0), v), "do not sum to its total"),
        (lambda v, w: (np.zeros(3), v), "totals of shape"),
        (lambda v, w: (np.where(np.isnan(v).all(axis=0), np.nan, np.nansum(v, 0)), v[:2]), "shares of shape"),
        (
            lambda v, w: (np.where(np.isnan(v).all(axis=0), np.nan, np.nansum(v, 0)), np.nan_to_num(v)),
            "a missing reward has the share NaN",
        ),
    ],
)
def test_an_aggregator_that_breaks_a_promise_is_named(function, promise: str) -> None:
    """The failure says which promise."""

    class Broken(Aggregator):
        def aggregate(self, normalized_RB, weights_R):
            return function(normalized_RB, weights_R)

    spec = AggregatorSpec(name="broken", factory=lambda _: Broken(), description="breaks a promise")
    with pytest.raises(AssertionError, match=f"broken.*{promise}"):
        check_aggregator_contract(spec)


class Sure(ScriptedJudge):
    """A backend whose labels are each certain."""

    async def label_logprobs(self, requests, labels):
        return [LabelLogprobs((0.0,) * len(labels)) for _ in requests]


class Mute(ScriptedJudge):
    """A backend that fails on every row."""

    async def label_logprobs(self, requests, labels):
        return [JudgeResponseError("nothing") for _ in requests]


class Numbers(ScriptedJudge):
    """A backend that generates something else than text."""

    async def label_logprobs(self, requests, labels):
        return [LabelLogprobs((-1.0, -2.0)) for _ in requests]

    async def generate(self, requests, *, max_new_tokens, temperature=0.0):
        return [1.0 for _ in requests]


@pytest.mark.parametrize(("backend", "promise"), [(Sure, "sum to 2.0"), (Mute, "nothing"), (Numbers, "generates")])
def test_a_judge_backend_that_breaks_a_promise_is_named(backend: type[ScriptedJudge], promise: str) -> None:
    """The failure says which promise."""
    spec = JudgeBackendSpec(name="broken", factory=lambda _: backend(lambda _: "x"), description="breaks a promise")
    with pytest.raises(AssertionError, match=f"broken.*{promise}"):
        check_judge_backend_contract(spec)


def test_a_judge_backend_that_keeps_its_promises_passes() -> None:
    """The double that the SDK ships keeps the contract."""

    class Both(ScriptedJudge):
        async def label_logprobs(self, requests, labels):
            return [LabelLogprobs((-0.5, -1.5)) for _ in requests]

        async def generate(self, requests, *, max_new_tokens, temperature=0.0):
            return [GeneratedText("yes") for _ in requests]

    check_judge_backend_contract(
        JudgeBackendSpec(name="both", factory=lambda _: Both(lambda _: "x"), description="answers")
    )
