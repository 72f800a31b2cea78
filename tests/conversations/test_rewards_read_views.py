"""What the bundled rewards make of messages: they read views, and nobody else's words for the policy's."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rlaif_sdk import Composer, Composition, ConversationError, Message, Reward, RewardBatch, ViewParams, reward
from rlaif_sdk.judges import PairwiseLabeler, PointwiseJudge
from rlaif_sdk.judges.pairwise import Pair
from rlaif_sdk.testing import ScriptedJudge, check_reward_contract

PAGE = "You are all idiots and I hate every one of you, you stupid worthless morons. " * 5
ANSWER = "The museum opens at ten in the morning and closes at six in the evening, every day but Monday."
SOURCE = "The museum opens at ten in the morning and closes at six in the evening. It is closed on Monday."
CALL = {"id": "1", "type": "function", "function": {"name": "browse", "arguments": '{"url": "museum"}'}}
REWARDS: dict[str, dict[str, Any]] = {
    "toxicity": {},
    "conciseness": {"target": 18},
    "factuality": {"column": "reference"},
}


def composed(*completions: Any, prompts: Any = None, **params: Any) -> Composition:
    """The scores of completions by the embedded rewards, failures abstaining."""
    rewards = {name: {"weight": 1.0, "params": {**own, **params}} for name, own in REWARDS.items()}
    composer = Composer.from_config({"rewards": rewards})
    count = len(completions)
    batch = RewardBatch(
        prompts=prompts or ["When is the museum open?"] * count,
        completions=list(completions),
        columns={"reference": [SOURCE] * count},
    )
    return composer.compose(batch)


def assert_the_same(composition: Composition) -> None:
    """Every reward gives every row the score of the first."""
    for name, column in composition.rewards.items():
        assert not column.failures, (name, column.failures)
        assert column.raw.tolist() == pytest.approx([column.raw[0]] * len(composition)), name


def assistant(content: Any, **fields: Any) -> list[Any]:
    return [{"role": "assistant", "content": content, **fields}]


def test_null_fields_change_no_score() -> None:
    """A client's dump has every field, null where it says nothing, and scored otherwise than the plain message."""
    dump = {
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
        "tool_calls": None,
        "name": None,
    }
    question = {"role": "user", "content": "When is the museum open?"}
    assert_the_same(
        composed(
            ANSWER,
            assistant(ANSWER),
            assistant(ANSWER, **dump),
            assistant([{"type": "text", "text": ANSWER, "annotations": None, "image_url": None}]),
            [{"role": "assistant", "content": None, "tool_calls": None}, *assistant(ANSWER)],
            assistant(ANSWER),
            prompts=["When is the museum open?"] * 5 + [[{**question, **dump}]],
        )
    )


def rollout(*pages: Any) -> list[Any]:
    return [{"role": "assistant", "content": None, "tool_calls": [CALL]}, *pages, *assistant(ANSWER)]


def test_what_tools_and_users_wrote_is_not_scored_as_the_policys() -> None:
    """A page full of abuse between a call and the answer made the answer toxic and wordy."""
    assert_the_same(
        composed(
            ANSWER,
            rollout({"role": "tool", "tool_call_id": "1", "content": PAGE}),
            rollout({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": PAGE}]}),
            [
                {"type": "function_call", "call_id": "1", "name": "browse", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "1", "output": PAGE},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": ANSWER}]},
            ],
            rollout({"role": "function", "name": "browse", "content": PAGE}),
            [*rollout(), {"role": "user", "content": PAGE}],
        )
    )


def test_a_lone_call_is_no_empty_answer() -> None:
    """Where the policy called a tool and said nothing there are no words to score: text rewards abstain, and say so."""
    lone = assistant(None, tool_calls=[CALL])
    composition = composed(lone, assistant(""), "", assistant("<think>Hm", tool_calls=None))
    for column in composition.rewards.values():
        assert not column.failures
        assert column.status(0) == "abstained"
        assert "called a tool" in (column.reason(0) or "")
        assert column.raw[1:].tolist() == pytest.approx([column.raw[1]] * 3)  # said nothing: scored by its own rule


@pytest.mark.parametrize("content", [42, [42], [{"colour": "red"}], {"type": 1, "text": ANSWER}])
def test_a_row_that_cannot_be_read_fails_alone(content: object) -> None:
    """One such row left all hundred unscored."""
    composition = composed(*[ANSWER] * 50, assistant(content), *[assistant(ANSWER)] * 49)
    for column in composition.rewards.values():
        assert list(column.failures) == [50]
        assert "completion" in column.failures[50]
        assert "message 1" in column.failures[50]
        assert "row" not in column.failures[50], "a table counts its rows from elsewhere"


@pytest.mark.parametrize("prompt", [None, 7, [{"content": "no role"}], [7]])
def test_a_prompt_that_cannot_be_read_fails_its_row_alone(prompt: object) -> None:
    """Likewise on the side of the prompt, for a reward that does not read prompts too: what it would score is unknown."""
    composition = composed(ANSWER, ANSWER, prompts=["When?", prompt])
    for column in composition.rewards.values():
        assert list(column.failures) == [1]
        assert "prompt" in column.failures[1]


def test_when_no_row_can_be_read_nothing_is_asked() -> None:
    """A batch of broken rows is all failures, and no reward is called with an empty batch."""

    def never(completions: list[Any]) -> list[float]:
        raise AssertionError("called")

    composition = Composer({"never": never}, weights={"never": 1.0}).compose(
        RewardBatch(prompts=["a", "b"], completions=[[7], [8]])
    )
    assert set(composition.rewards["never"].failures) == {0, 1}


def test_an_unreadable_row_is_not_asked_of_a_fallback() -> None:
    """A fallback cannot read it either; the rows around it get their scores."""
    composer = Composer.from_config(
        {
            "rewards": {"a": {"use": "conciseness", "params": {"target": 3}, "fallback": "b"}},
            "fallbacks": {"b": {"use": "conciseness", "params": {"target": 3}}},
        }
    )
    composition = composer.compose(RewardBatch(prompts=["p"] * 3, completions=["one two three", [7], "one two three"]))
    assert list(composition.rewards["a"].failures) == [1]
    assert composition.totals[0] == composition.totals[2]


@pytest.mark.parametrize(
    "thoughtful",
    [
        f"<think>\n{PAGE}\n</think>\n\n{ANSWER}",
        assistant(f"<think>{PAGE}</think>{ANSWER}"),
        assistant(f"{PAGE}</think>\n{ANSWER}"),
        assistant(ANSWER, reasoning_content=PAGE),
        assistant([{"type": "thinking", "thinking": PAGE}, {"type": "text", "text": ANSWER}]),
        [{"type": "reasoning", "summary": [{"type": "summary_text", "text": PAGE}]}, *assistant(ANSWER)],
    ],
)
def test_thinking_changes_no_score_unless_it_is_kept(thoughtful: Any) -> None:
    """Thinking before an answer took two thirds of its factuality."""
    assert_the_same(composed(ANSWER, thoughtful))
    kept = composed(ANSWER, thoughtful, thinking="keep")
    assert kept.rewards["toxicity"].raw[1] < kept.rewards["toxicity"].raw[0]
    assert kept.rewards["conciseness"].raw[1] < kept.rewards["conciseness"].raw[0]


def test_a_view_is_a_parameter_of_the_reward() -> None:
    """What a reward reads is said in its params, and can be chosen there."""
    steps = [*assistant(PAGE), {"role": "user", "content": "Be polite."}, *assistant(ANSWER)]
    toxicity = [composed(steps, view=view).rewards["toxicity"].raw[0] for view in ("answer", "assistant", "transcript")]
    assert toxicity[0] == composed(ANSWER).rewards["toxicity"].raw[0]
    assert toxicity[0] > toxicity[1]
    shown = composed(rollout({"role": "tool", "content": PAGE}), view="transcript").rewards["toxicity"].raw[0]
    assert shown < toxicity[0]


@pytest.mark.parametrize(
    "completion",
    [
        "four",
        assistant("four"),
        assistant([{"type": "output_text", "text": "four"}]),
        [{"role": "assistant", "content": None, "tool_calls": [CALL]}, *assistant("four")],
        assistant("<think>two and two</think>four"),
    ],
)
def test_a_plain_function_gets_text_where_it_asks_for_text(completion: Any) -> None:
    """A function of texts failed on messages with an AttributeError, which abstention hid."""
    asked: dict[str, Any] = {}

    def length(completion_texts: list[str], prompt_texts: list[str], **columns: Any) -> list[float]:
        asked.update(prompts=prompt_texts, columns=columns)
        return [float(len(text)) for text in completion_texts]

    prompt: list[Message] = [{"role": "user", "content": "Two and two?"}]
    composition = Composer({"length": length}, weights={"length": 1.0}).compose(
        RewardBatch(prompts=[prompt], completions=[completion])
    )
    assert not composition.rewards["length"].failures
    assert asked["prompts"] == ["Two and two?"]
    assert not {"completion_texts", "prompt_texts"} & asked["columns"].keys()
    assert composition.rewards["length"].raw.tolist() == [4.0]


def test_a_plain_function_gets_messages_where_it_asks_as_trl_would() -> None:
    """``completions`` are what TRL would give, so one function serves both."""
    seen: list[Any] = []

    @reward
    def first(prompts: list[Any], completions: list[Any]) -> list[float]:
        seen.extend(completions)
        return [float(len(completion[0]["content"])) for completion in completions]

    check = Composer({"first": first}, weights={"first": 1.0})
    assert check.compose(RewardBatch(prompts=["p"], completions=[assistant("four")])).totals.tolist() == [4.0]
    assert seen == [assistant("four")]
    assert first.inputs == ()


def test_functions_of_texts_read_no_further_column() -> None:
    """A ledger does not miss for columns that such a function never sees."""

    @reward
    def length(completion_texts: list[str], *, per: float = 1.0) -> list[float]:
        return [len(text) / per for text in completion_texts]

    assert length.inputs == ()
    assert length.columns == ()
    check_reward_contract(length)


class Words(Reward):
    """Counts words of a view."""

    name = "words"

    def __init__(self, params: ViewParams) -> None:
        self.params = params

    def score(self, batch: RewardBatch) -> list[float | None]:
        return [None if text is None else float(len(text.split())) for text in self.params.texts(batch)]


def test_a_reward_of_ones_own_takes_its_view_from_its_params() -> None:
    """`ViewParams` is all that a plugin needs."""
    batch = RewardBatch(
        prompts=["p", "p"],
        completions=[assistant("two words", reasoning_content="three more words"), assistant(None, tool_calls=[CALL])],
    )
    assert Words(ViewParams()).score(batch) == [2.0, None]
    assert Words(ViewParams(thinking="keep")).score(batch) == [7.0, None]
    check_reward_contract(Words(ViewParams()))


def test_a_reward_asked_directly_says_which_row_cannot_be_read() -> None:
    """Without a composer nobody takes the row out: the error names row, side and message."""
    batch = RewardBatch(prompts=["p", "p"], completions=["fine", [{"role": "assistant", "content": 42}]])
    with pytest.raises(ConversationError, match="row 2, completion, message 1: content is 42"):
        Words(ViewParams()).score(batch)
    assert list(batch.unreadable) == [1]
    assert list(batch.select([1, 0]).unreadable) == [0]


def asked_text(judge: ScriptedJudge) -> str:
    return "\n".join(message["content"] for request in judge.requests for message in request)  # type: ignore[misc]


def judged(**view: Any) -> tuple[str, Composition]:
    backend = ScriptedJudge(lambda _: {"A": 1.0})
    composer = Composer({"judge": PointwiseJudge(backend, **view)}, weights={"judge": 1.0})
    rows = [rollout({"role": "tool", "tool_call_id": "1", "content": PAGE}), assistant(None, tool_calls=[CALL])]
    composition = composer.compose(RewardBatch(prompts=["When?", "When?"], completions=rows))
    return asked_text(backend), composition


def test_a_judge_sees_the_policys_words_and_abstains_on_a_lone_call() -> None:
    """A judge rated the page as part of the answer, and a lone call as an empty answer: -1."""
    seen, composition = judged()
    assert ANSWER in seen
    assert PAGE not in seen
    assert composition.rewards["judge"].status(1) == "abstained"
    seen, composition = judged(view="transcript")
    assert PAGE.strip() in seen
    assert "[calls browse(" in seen
    assert composition.rewards["judge"].status(1) == "scored"


@pytest.mark.parametrize(
    "response",
    [
        rollout({"role": "tool", "tool_call_id": "1", "content": PAGE}),
        assistant(f"<think>{PAGE}</think>{ANSWER}"),
        assistant([{"type": "output_text", "text": ANSWER}]),
        assistant(ANSWER, tool_calls=None, refusal=None),
    ],
)
def test_a_labeler_compares_the_policys_words(response: Any) -> None:
    """Two responses that say the same are equal, whatever tools returned or was thought on the way."""
    backend = ScriptedJudge(lambda _: {"1": 0.9, "2": 0.1})
    (label,) = asyncio.run(PairwiseLabeler(backend).label([Pair("When?", response, ANSWER)]))
    assert "identical" in label.flags
    assert not backend.requests


@pytest.mark.parametrize("response", [[7], assistant(42), None, [{"content": "x"}]])
def test_a_labeler_leaves_what_it_cannot_read_unlabelled(response: Any) -> None:
    """The pair beside it gets its label."""
    backend = ScriptedJudge(lambda _: {"1": 0.5, "2": 0.5})
    good = Pair("p", "one", "two")
    broken, fine = asyncio.run(PairwiseLabeler(backend).label([Pair("p", response, "two"), good]))
    assert broken.prob_1 is None
    assert broken.kind == "ConversationError"
    assert fine.prob_1 == 0.5


def test_a_lone_call_does_not_lose_a_comparison_for_having_no_words() -> None:
    """It is unlabelled, and the error names the view that shows calls."""
    backend = ScriptedJudge(lambda _: {"1": 0.9, "2": 0.1})
    pair = Pair("p", assistant(None, tool_calls=[CALL]), assistant("two"))
    (label,) = asyncio.run(PairwiseLabeler(backend).label([pair]))
    assert label.prob_1 is None
    assert "view: transcript" in (label.error or "")
    (label,) = asyncio.run(PairwiseLabeler(backend, view="transcript", orders="given").label([pair]))
    assert label.prob_1 == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("roles", "refused"),
    [
        (["assisatant"], True),
        (["user", "Asistant"], True),
        (["tool", "ponderer"], True),
        (["bot"], False),
        (["critic", "assistant"], False),
        (["user"], False),
        (["tool"], False),
    ],
)
def test_a_completion_of_nobody_known_cannot_be_read(roles: list[str], refused: bool) -> None:
    """A misspelt role would leave nothing to score, and conciseness or toxicity would score that."""
    batch = RewardBatch(["p"], [[{"role": role, "content": "words"} for role in roles]])
    assert list(batch.unreadable) == ([0] if refused else [])
    if refused:
        assert f"the role {roles[-1].lower()!r} is not known" in str(batch.unreadable[0])
