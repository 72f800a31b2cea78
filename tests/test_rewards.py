from __future__ import annotations

import asyncio
import functools

import pytest
from pydantic import ValidationError

from rlaif_sdk import BatchError, Composer, Params, Progress, Reward, RewardBatch, RewardError, RewardSpec, reward
from rlaif_sdk.rewards import FunctionReward, as_reward, require_columns

BATCH = RewardBatch(
    prompts=["p", "q"],
    completions=["one", "three"],
    completion_ids=[[1], [2, 3]],
    columns={"answer": ["a", "b"], "extra": [1, 2]},
)


def test_a_function_is_given_what_its_signature_asks_for() -> None:
    """TRL's convention: prompts, completions and the columns by name, nothing that it does not take."""
    seen = {}

    @reward
    def matches(completions, answer, absent=None):
        seen.update(completions=completions, answer=answer, absent=absent)
        return [1.0, 0.0]

    assert matches.score(BATCH) == [1.0, 0.0]
    assert seen == {"completions": ["one", "three"], "answer": ["a", "b"], "absent": None}
    assert matches.columns == ("answer",)


CALL = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
SHAPES = {
    "text": "Yes, please.",
    "chat": [{"role": "assistant", "content": "Yes, please."}],
    "blocks": [{"role": "assistant", "content": [{"type": "text", "text": "Yes, please."}]}],
    "strings": [{"role": "assistant", "content": ["Yes, please."]}],
    "response items": [{"role": "assistant", "content": [{"type": "output_text", "text": "Yes, please."}]}],
    "thinking": [
        {
            "role": "assistant",
            "content": [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Yes, please."}],
        }
    ],
    "tools": [
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "1", "content": "a page"},
        {"role": "assistant", "content": [{"type": "text", "text": "Yes, please."}]},
    ],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_each_documented_style_of_function_reads_each_shape(shape: str) -> None:
    """TRL's style for text or messages, with whatever else it is given, and text whatever the data."""

    def for_messages(prompts, completions, **kwargs):
        assert set(kwargs) == {"reference"}
        return [float(len(messages[-1]["content"])) for messages in completions]

    def for_text(prompts, completions, **kwargs):
        return [float(len(text)) for text in completions]

    def whatever(prompts, completion_texts, reference, **kwargs):
        return [float(len(text)) for text in completion_texts]

    async def later(completion_texts):
        return [float(len(text)) for text in completion_texts]

    prompt = "Tea?" if shape == "text" else [{"role": "user", "content": "Tea?"}]
    rows = [{"prompt": prompt, "completion": SHAPES[shape], "reference": "tea"}] * 2
    trl = for_text if shape == "text" else for_messages
    with Composer({"trl": trl, "whatever": whatever, "later": later}) as composer:
        composition = composer.compose(RewardBatch.from_records(rows))
    assert {name: column.raw.tolist() for name, column in composition.rewards.items()} == {
        "trl": [12, 12],
        "whatever": [12, 12],
        "later": [12, 12],
    }


def test_a_message_keeps_what_is_no_text() -> None:
    """An image stays a block, and other fields of a message stay with it."""
    image = [{"type": "image", "image": "x.png"}, {"type": "text", "text": "this"}]
    said = [
        {"role": "assistant", "content": image},
        {"role": "assistant", "content": [{"type": "text", "text": "a"}], "id": 7},
    ]
    seen: list[list] = []

    def sees(completions):
        seen.extend(completions)
        return [0.0]

    reward(sees).score(RewardBatch(["p"], [said]))
    assert seen == [[said[0], {"role": "assistant", "content": "a", "id": 7}]]
    assert said[1]["content"] == [{"type": "text", "text": "a"}]


def test_a_function_for_text_that_gets_messages_is_told_what_to_name() -> None:
    """In the error that ends the run at its first batch."""

    def words(completions):
        return [float(len(text.split())) for text in completions]

    with (
        Composer({"words": words}) as composer,
        pytest.raises(
            RewardError, match="lists of messages here: a function that names completion_texts gets their text"
        ),
    ):
        composer.compose(RewardBatch([[{"role": "user", "content": "Tea?"}]], [SHAPES["chat"]]))


def test_a_function_with_keyword_arguments_receives_every_column() -> None:
    """`**kwargs` is how most published reward functions are written."""
    seen = {}

    def sees_all(prompts, completions, **kwargs):
        seen.update(kwargs)
        return [0.0, 0.0]

    as_reward(sees_all).score(BATCH)
    assert seen == {"completion_ids": [[1], [2, 3]], "answer": ["a", "b"], "extra": [1, 2]}


def test_keyword_only_arguments_with_defaults_are_parameters() -> None:
    """They are set by the config, never by a column of the same name, and are checked by their annotation."""

    @reward(range=(0, 10))
    def scaled(completions, *, factor: float = 1.0, extra: int | None = None):
        return [factor * len(text) + (extra or 0) for text in completions]

    assert scaled.score(BATCH) == [3.0, 5.0]
    assert scaled.configured({"factor": 2}).score(BATCH) == [6.0, 10.0]
    assert scaled.configured({"factor": 2}).range == (0, 10)
    with pytest.raises(ValidationError, match="factor"):
        scaled.configured({"factor": "many"})
    with pytest.raises(ValidationError, match="extra"):
        scaled.configured({"extra": "many"})
    with pytest.raises(ValidationError, match="fctor"):
        scaled.configured({"fctor": 2})


def test_token_ids_reach_a_function_even_as_a_keyword_only_argument() -> None:
    """`completion_ids` is part of the convention, never a parameter."""

    @reward
    def length(completions, *, completion_ids=None):
        return [float(len(ids)) for ids in completion_ids]

    assert length.score(BATCH) == [1.0, 2.0]


def test_a_function_is_made_a_reward_without_a_look_through_what_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """As pydantic looks for docstrings of attributes, which takes the longer the more is imported."""

    def counted(completions: list[str], *, least: int = 3) -> list[float]:
        return [float(len(completion) >= least) for completion in completions]

    looks: list[object] = []
    with monkeypatch.context() as patched:
        patched.setattr("inspect.getmodule", lambda *found: looks.append(found))
        subject = FunctionReward(counted, params={"least": 1})
    assert not looks
    assert subject.score(BATCH) == [1.0] * len(BATCH)


def test_annotations_that_cannot_be_evaluated_leave_the_parameter_unchecked() -> None:
    """A name imported for type checkers alone is no reason to refuse a function."""

    def odd(completions, *, target: NotImported = 3):  # noqa: F821
        return [float(target)] * len(completions)

    assert FunctionReward(odd, params={"target": 5}).score(BATCH) == [5.0, 5.0]


def test_a_decorated_function_can_still_be_called_and_keeps_its_name_and_documentation() -> None:
    """The same object serves a plain loop, TRL (which reads `__name__`) and a composer."""

    @reward(name="short")
    def brevity(prompts, completions):
        """Prefer short answers."""
        return [-float(len(text)) for text in completions]

    assert brevity(["p"], ["four"]) == [-4.0]
    assert brevity.__name__ == brevity.name == "short"
    assert RewardSpec.from_function(brevity).description == "Prefer short answers."


def test_a_partial_gets_a_name() -> None:
    """TRL and logs need `__name__`, which functools.partial lacks."""
    named = as_reward(functools.partial(lambda completions, k: [k] * len(completions), k=2.0))
    assert named.name == named.__name__ == "partial"  # type: ignore[attr-defined]
    assert named.score(BATCH) == [2.0, 2.0]


def test_an_async_function_is_a_reward() -> None:
    """What it returns is awaited by whoever runs it."""

    @reward
    async def judged(completions):
        await asyncio.sleep(0)
        return [1.0] * len(completions)

    assert asyncio.run(judged.score(BATCH)) == [1.0, 1.0]  # type: ignore[arg-type]


def test_anything_with_a_score_method_is_a_reward_and_may_declare_the_rest() -> None:
    """Duck-typed objects need not import this SDK."""

    class Duck:
        range = (0, 1)
        columns = ("answer",)
        higher_is_better = False

        def score(self, batch):
            return [0.5] * len(batch)

    for duck in (Duck(), Duck):
        adapted = as_reward(duck)
        assert (adapted.name, adapted.range, adapted.columns) == ("Duck", (0, 1), ("answer",))
        assert not adapted.higher_is_better
        assert adapted.score(BATCH) == [0.5, 0.5]
        adapted.setup()
        adapted.close()


@pytest.mark.parametrize("value", [None, 3, "brevity", object(), dict])
def test_what_is_no_reward_is_refused(value: object) -> None:
    """The message says what a reward is."""
    with pytest.raises(TypeError, match=r"is no reward: it needs a score\(batch\) method"):
        as_reward(value)


def test_a_missing_column_is_named_with_those_present() -> None:
    """The hint says how to map one."""
    needy = as_reward(lambda completions, reference: [0.0] * len(completions))
    with pytest.raises(BatchError, match=r"'support' needs the column 'reference' .*answer, extra; map one under"):
        require_columns(needy, BATCH, "support")


def test_a_spec_checks_parameters_before_it_builds() -> None:
    """A factory only ever sees a valid instance of its params model."""

    class Wanted(Params):
        k: int
        """How many."""

    spec = RewardSpec(name="x", factory=lambda params: params, params=Wanted)
    assert spec.build({"k": 2}) == Wanted(k=2)
    assert spec.build(Wanted(k=3)).k == 3
    for wrong in ({}, {"k": 1, "j": 2}, {"k": float("nan")}, None):
        with pytest.raises(ValidationError):
            spec.build(wrong)
    assert Wanted.model_json_schema()["properties"]["k"]["description"] == "How many."


def test_a_reward_without_score_cannot_be_made() -> None:
    """The one method that has no default is asked for at once."""

    class Empty(Reward):
        pass

    with pytest.raises(TypeError, match="abstract"):
        Empty()  # type: ignore[abstract]


def test_a_function_that_names_what_trl_hands_it_scores_without_trl():
    """`trainer_state`, `log_metric` and `log_extra` are neither columns nor parameters, with or without a default.

    The state says how far training is.
    """

    def f(completions, trainer_state, *, log_metric=None, log_extra=None):
        log_metric("length", 1.0)
        log_extra("seen", completions)
        return [trainer_state.global_step / trainer_state.max_steps for _ in completions]

    subject = FunctionReward(f)
    assert subject.columns == ()
    assert subject.inputs == ()
    assert not subject.params_model.model_fields
    assert subject.score(RewardBatch(["p"], ["c"], progress=Progress(3, 4))) == [0.75]
