"""verl's reward manager: prompts, turns and groups from what verl hands over, and numbers alone for what it gets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from rlaif_sdk import (
    Composer,
    ConfigError,
    Credit,
    CreditSpan,
    DataError,
    Reward,
    RewardBatch,
    RewardError,
    Score,
)
from rlaif_sdk.integrations import verl
from tests.integrations.cases import build_group_composer
from tests.integrations.trainer_calls import Settings, VerlBase, verl_data, verl_settings, verl_tokenizer
from tests.serving.loopback import serving

PAGE = "DAMN page that no policy wrote"
PARTS = [
    ("Search cats<|im_end|>", 1),
    (f"\n<|im_start|>user\n<tool_response>\n{PAGE}\n</tool_response><|im_end|>\n<|im_start|>assistant\n", 0),
    ("Cats purr.<|im_end|>", 1),
]
ASKED = [{"role": "user", "content": "About cats?"}]


def managed(composer: Composer, settings: Settings | None = None, **reward_kwargs: Any) -> Any:
    return verl.reward_manager(VerlBase, composer)(settings or verl_settings(**reward_kwargs), verl_tokenizer())


def answers(manager: Any, data: Sequence[Any]) -> list[Any]:
    async def run() -> list[Any]:
        return await asyncio.gather(*(manager.run_single(one) for one in data), return_exceptions=True)

    return asyncio.run(run())


def seen(*data: Any) -> list[dict[str, Any]]:
    """What a reward is given of completions."""
    rows: list[dict[str, Any]] = []

    def spy(prompts: list[Any], completions: list[Any], **columns: Any) -> list[float]:
        for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            rows.append({"prompt": prompt, "completion": completion, **{n: v[row] for n, v in columns.items()}})
        return [1.0] * len(prompts)

    with Composer({"spy": spy}) as composer:
        for answer in answers(managed(composer), data):
            assert answer["reward_score"] == 1.0
    return rows


def test_a_reward_is_given_what_verl_knows() -> None:
    """The prompt's messages, the completion without its end, and everything else as columns."""
    data = verl_data(
        ASKED, "Cats purr.<|im_end|>", extra_info={"index": 7}, reward_model={"ground_truth": "purr"}, uid="u"
    )
    (row,) = seen(data)
    assert (row["prompt"], row["completion"]) == (ASKED, "Cats purr.")
    assert (row["index"], row["ground_truth"], row["data_source"], row["num_turns"]) == (7, "purr", "suite", 2)
    assert row["tool_extra_fields"] == {"turn_scores": []}


class TestTurns:
    """What a tool answered is never the policy's word."""

    @staticmethod
    def response(**fields: Any) -> Any:
        return verl_data(ASKED, "".join(text for text, _ in PARTS), num_turns=4, **fields)

    def test_by_the_response_mask(self) -> None:
        """Where verl hands one over, as to a colocated reward model."""
        ids = [verl_tokenizer()(text, add_special_tokens=False)["input_ids"] for text, _ in PARTS]
        mask = [written for part, (_, written) in zip(ids, PARTS, strict=True) for _ in part]
        (row,) = seen(self.response(mask=mask))
        assert [turn["role"] for turn in row["completion"]] == ["assistant", "tool", "assistant"]
        assert [turn["content"] for turn in row["completion"][::2]] == ["Search cats", "Cats purr."]
        assert PAGE in row["completion"][1]["content"]

    def test_by_the_chat_template(self) -> None:
        """Where it hands over none, as its agent loop does."""
        (row,) = seen(self.response())
        assert [turn["role"] for turn in row["completion"]] == ["assistant", "tool", "assistant"]
        assert [turn["content"] for turn in row["completion"][::2]] == ["Search cats", "Cats purr."]
        assert row["completion"][1]["content"] == f"user\n<tool_response>\n{PAGE}\n</tool_response>"

    def test_a_rollout_that_ends_with_a_tool(self) -> None:
        """The length limit cut it off before the policy spoke again."""
        text = PARTS[0][0] + PARTS[1][0].removesuffix("<|im_start|>assistant\n") + PARTS[1][0]
        (row,) = seen(verl_data(ASKED, text, num_turns=4))
        assert PAGE not in "".join(turn["content"] for turn in row["completion"] if turn["role"] == "assistant")

    def test_without_a_template_nobody_guesses(self) -> None:
        """The page would be scored as the policy's."""
        with Composer({"n": lambda completions: [1.0] * len(completions)}) as composer:
            (said,) = answers(managed(composer), [verl_data(ASKED, f"Search<|im_end|>{PAGE}", num_turns=4)])
        assert isinstance(said, DataError)
        assert "generation prompt" in str(said)


class TestCredit:
    """Where verl puts scores into its batch itself, it takes one a token."""

    @staticmethod
    def rewards() -> dict[str, Any]:
        class Turns(Reward):
            def score(self, batch: RewardBatch) -> list[Score]:
                return [Score.of_turns([0.25, 0.5][: len(turns)]) for turns in batch.policy_turns]

        def marks(completion_texts: list[str]) -> list[Score | float]:
            ends = [text.find("purr") + 4 for text in completion_texts]
            return [
                Score(1.0, credit=Credit(spans=(CreditSpan(end - 4, end, 1.0),))) if end > 3 else 0.0 for end in ends
            ]

        return {"turns": Turns(), "marks": marks}

    @staticmethod
    def data() -> Any:
        ids = [verl_tokenizer()(text, add_special_tokens=False)["input_ids"] for text, _ in PARTS]
        mask = [written for part, (_, written) in zip(ids, PARTS, strict=True) for _ in part]
        return TestTurns.response(mask=mask), [len(part) for part in ids]

    def test_a_token_s_reward_stands_where_it_falls(self) -> None:
        """A turn's on its last token, marked words' on the token that ends them; the total's sum is what it was."""
        data, (first, page, last) = self.data()
        settings = verl_settings()
        settings["reward"]["reward_model"] = Settings(enable=True)
        with Composer(self.rewards()) as composer:
            manager = managed(composer, settings)
            (answer,) = answers(manager, [data])
        rm_scores = manager.assemble_rm_scores(data, [answer["reward_score"]])
        (row,) = rm_scores.tolist()
        placed = {place: value for place, value in enumerate(row) if value}
        end = first + page + last - 1
        assert placed.pop(first - 1) == 0.25
        assert placed.pop(end) == 0.5
        ((purr, value),) = placed.items()
        tokens = data.batch["responses"][0]
        assert verl_tokenizer().decode(tokens[first + page : purr + 1]) == "Cats purr"
        assert (value, answer["reward_extra_info"]["score"]) == (1.0, 1.75)

    def test_where_completions_are_scored_as_they_come_it_gets_the_sum(self) -> None:
        """verl's agent loop takes one number; so does its batch for a completion without credit."""
        data, _ = self.data()
        with Composer(self.rewards()) as composer:
            manager = managed(composer)
            (answer,) = answers(manager, [data])
        assert answer["reward_score"] == 1.75
        (row,) = manager.assemble_rm_scores(data, [answer["reward_score"]]).tolist()
        assert {value for value in row if value} == {1.75}


class TestUnscored:
    """verl takes numbers alone."""

    @pytest.fixture
    def composer(self) -> Any:
        def short(completions: list[str]) -> list[float | None]:
            return [None if "say nothing" in text else 1 / (1 + len(text)) for text in completions]

        def calm(completions: list[str]) -> list[float | None]:
            return [None if "nothing" in text else 1.0 for text in completions]

        with Composer({"short": short, "calm": calm}) as composer:
            yield composer

    @staticmethod
    def group(*texts: str) -> list[Any]:
        return [verl_data(ASKED, text, uid="u") for text in texts]

    def test_it_raises_unless_something_else_is_chosen(self, composer: Composer) -> None:
        """verl's v1 trainer then samples another prompt."""
        said = answers(managed(composer), self.group("a", "say nothing"))
        assert said[0]["reward_score"] == 1.5
        assert isinstance(said[1], RewardError)

    def test_a_mask_gives_the_groups_mean(self, composer: Composer) -> None:
        """So its advantage is 0, and the others are measured from their own mean."""
        said = answers(managed(composer, unscored="mask"), self.group("a", "bbb", "say nothing", "ccc"))
        rewards = [answer["reward_score"] for answer in said]
        assert rewards == [1.5, 1.25, pytest.approx((1.5 + 1.25 + 1.25) / 3), 1.25]
        assert [answer["reward_extra_info"]["unscored"] for answer in said] == [0, 0, 1, 0]

    def test_a_group_of_which_none_is_scored_raises(self, composer: Composer) -> None:
        """It has no mean."""
        said = answers(managed(composer, unscored="mask"), self.group(*["say nothing"] * 4))
        assert all(isinstance(one, RewardError) for one in said)

    def test_a_reward_without_a_score_is_no_nan(self, composer: Composer) -> None:
        """The keys are the same for every completion, as verl's batches want."""
        said = answers(managed(composer), self.group("a", "nothing"))
        assert [list(answer["reward_extra_info"]) for answer in said] == [["score", "short", "calm", "unscored"]] * 2
        assert [answer["reward_extra_info"]["calm"] for answer in said] == [1.0, None]

    def test_gdpo_gets_a_number_that_changes_no_advantage(self, composer: Composer) -> None:
        """It normalises each reward by itself, and one NaN would be the whole group's."""
        settings = verl_settings(unscored="mask")
        settings["algorithm"] = Settings(adv_estimator="gdpo")
        said = answers(managed(composer, settings), self.group("a", "nothing", "say nothing", "ccc"))
        short = [answer["reward_extra_info"]["short"] for answer in said]
        assert short == [0.5, 0.125, pytest.approx((0.5 + 0.125 + 0.25) / 3), 0.25]
        assert [answer["reward_extra_info"]["calm"] for answer in said] == [1.0] * 4
        said = answers(managed(composer, settings), self.group(*["nothing"] * 4))
        assert [answer["reward_extra_info"]["calm"] for answer in said] == [0.0] * 4


def change(settings: Settings, *path: str, value: Any) -> Settings:
    inner = settings
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return settings


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("reward", "num_workers"), 8),
        (("actor_rollout_ref", "rollout", "n"), 1),
        (("trainer", "test_freq"), 5),
        (("trainer", "val_before_train"), True),
        (("algorithm", "adv_estimator"), "remax"),
        (("data", "train_batch_size"), 251),
    ],
)
def test_groups_that_cannot_be_gathered_are_refused_before_anything_is_sampled(
    path: tuple[str, ...], value: Any
) -> None:
    """Else a completion would wait for others that never come, or be compared with those of another group."""
    settings = change(verl_settings(), *path, value=value)
    with build_group_composer() as composer, pytest.raises(ConfigError, match=r"group|uid|together"):
        managed(composer, settings)
    with Composer({"n": lambda completions: [1.0] * len(completions)}) as composer:
        managed(composer, settings)  # what compares nothing needs no group


def test_a_missing_member_is_waited_for_as_long_as_is_said() -> None:
    """Then those who came are a smaller group."""
    data = [verl_data(ASKED, text, uid="u", extra_info={"label": "a"}) for text in ("a", "bbb", "ab")]
    with build_group_composer() as composer:
        said = answers(managed(composer, deadline=0.1), data)
    assert all(isinstance(answer["reward_score"], float) for answer in said)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], str]:
    def write(address: str) -> str:
        params = f"{{model: judge, base_url: '{address}', prompt: 'Good?'}}"
        file = tmp_path / "rewards.yaml"
        file.write_text(f"rewards:\n  helpful: {{use: judge, params: {params}}}\n")
        return str(file)

    return write


def test_the_routers_address_is_a_judges(write: Callable[[str], str]) -> None:
    """verl serves its reward model where it says when it makes the manager."""
    document = verl._with_router(write("http://{reward_router_address}/v1"), "10.0.0.1:8000")
    assert not isinstance(document, str)
    assert document.data["rewards"]["helpful"]["params"]["base_url"] == "http://10.0.0.1:8000/v1"
    assert document.line(("rewards", "helpful")) == 2


def test_a_router_that_is_not_there_is_told_by_file_and_line(write: Callable[[str], str]) -> None:
    """verl serves no reward model in this run."""
    settings = verl_settings(config=write("http://{reward_router_address}/v1"))
    with pytest.raises(ConfigError, match=r"rewards\.yaml:2: rewards\.helpful\.params\.base_url"):
        verl.reward_manager(VerlBase)(settings, verl_tokenizer())
    with pytest.raises(ConfigError, match="name no config"):
        verl.reward_manager(VerlBase)(verl_settings(), verl_tokenizer())


def test_a_server_gathers_the_groups_of_several_workers() -> None:
    """Its address stands where a config's path would, and each worker sends it its own part of a group."""
    rewards = {"length": {"use": f"{__name__}:length", "normalize": "group_zscore"}}
    texts = ["a", "bbb", "ccccc", "ddddddd"]
    with serving({"rewards": rewards}, cohort=True) as server:
        settings = verl_settings(config=server.url, groups=True)
        settings["reward"]["num_workers"] = 2
        workers = [verl.reward_manager(VerlBase)(settings, verl_tokenizer()) for _ in range(2)]

        async def run() -> list[Any]:
            calls = [workers[place % 2].run_single(verl_data(ASKED, text, uid="u")) for place, text in enumerate(texts)]
            return await asyncio.gather(*calls)

        said = asyncio.run(run())
    assert [answer["reward_extra_info"]["length"] for answer in said] == [1.0, 3.0, 5.0, 7.0]
    rewards_B = [answer["reward_score"] for answer in said]
    assert rewards_B == sorted(rewards_B)
    assert sum(rewards_B) == pytest.approx(0.0)


def length(completion_texts: list[str]) -> list[float]:
    return [float(len(text)) for text in completion_texts]
