"""The reward ``tournament``: its schemes, what they cost, what is remembered, and what fails."""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from rlaif_judge import rlaif_rewards
from rlaif_sdk import BatchError, Composer, Composition, ConfigError, RewardBatch
from rlaif_sdk.testing import check_reward_contract

SPEC = next(spec for spec in rlaif_rewards() if spec.name == "tournament")
SCHEMES = ("listwise", "round_robin", "swiss", "information", "anchor")
_SHOWN = re.compile(r"<response_(\w)>\n(.*?)\n</response_\1>", re.DOTALL)
TEXTS = ["a", "aaaa", "aa", "aaaaaaa", "aaa", "aaaaaa", "aaaaa", "aaaaaaaa"]


class JudgeServer:
    """A server whose judge likes length, unless ``answer`` says otherwise: called with the texts by label.

    Attributes:
        seen: The texts of each request, by label.
    """

    def __init__(self) -> None:
        self.seen: list[dict[str, str]] = []
        self.answer: Callable[[dict[str, str]], dict[str, float] | str | None] = by_length
        self.url = ""


def by_length(texts: dict[str, str]) -> dict[str, float]:
    weights = {label: math.exp(text.count("a")) for label, text in texts.items()}
    return {label: weight / sum(weights.values()) for label, weight in weights.items()}


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    judge = JudgeServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            texts = dict(_SHOWN.findall(asked["messages"][0]["content"]))
            judge.seen.append(texts)
            said = judge.answer(texts)
            choice: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
            if isinstance(said, dict):
                top = [{"token": label, "logprob": math.log(chance)} for label, chance in said.items()]
                choice["logprobs"] = {"content": [{**top[0], "top_logprobs": top}]}
            choice["message"] = {"role": "assistant", "content": said if isinstance(said, str) else "A"}
            usage = {"prompt_tokens": 100, "completion_tokens": 1}
            body = json.dumps({"choices": [choice], "usage": usage}).encode()
            self.send_response(400 if said is None else 200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.daemon_threads = True
    judge.url = f"http://127.0.0.1:{running.server_port}/v1"
    threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield judge
    running.shutdown()
    running.server_close()


def config(server: JudgeServer, ledger: Any = None, **params: Any) -> dict[str, Any]:
    patient: dict[str, Any] = {"policy": "abstain", "fail_fast": False, "mask_group": "never"}
    reward = {"params": {"model": "tiny", "base_url": server.url, **params}, "on_failure": patient}
    return {"rewards": {"tournament": reward}, **({"ledger": str(ledger)} if ledger else {})}


def compose(server: JudgeServer, *texts: Any, ledger: Any = None, batch: Any = None, **params: Any) -> Composition:
    with Composer.from_config(config(server, ledger, **params)) as composer:
        return composer.compose(batch or RewardBatch(["Why?"] * len(texts), list(texts), group=[0] * len(texts)))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_reward_keeps_the_contract(server: JudgeServer, scheme: str) -> None:
    """Whatever the order of the rows, and whatever other groups there are."""
    server.answer = lambda texts: {label: (1 + len(text)) / 10_000 for label, text in texts.items()}
    check_reward_contract(SPEC, params={"model": "tiny", "base_url": server.url, "scheme": scheme})


@pytest.mark.parametrize("strength", ["bradley_terry", "win_share"])
@pytest.mark.parametrize("scheme", ["listwise", "round_robin"])
def test_the_best_comes_first_and_the_worst_last(server: JudgeServer, scheme: str, strength: str) -> None:
    """The places are those of the judge, within the range, and their middle is the middle of the range."""
    totals = compose(server, *TEXTS, scheme=scheme, strength=strength).to_list()
    assert sorted(range(8), key=lambda row: totals[row]) == sorted(range(8), key=lambda row: len(TEXTS[row]))
    assert max(map(abs, totals)) <= 1
    assert sum(totals) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("scheme", "near"), [("swiss", 0.8), ("information", 0.9), ("anchor", 0.9)])
def test_fewer_comparisons_come_near(server: JudgeServer, scheme: str, near: float) -> None:
    """The order is nearly the judge's."""
    totals = compose(server, *TEXTS, scheme=scheme).to_list()
    pairs = [(one, other) for one in range(8) for other in range(8) if len(TEXTS[one]) < len(TEXTS[other])]
    assert sum(totals[one] < totals[other] for one, other in pairs) / len(pairs) >= near


@pytest.mark.parametrize("rows", [2, 3, 5, 8])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_it_costs_what_it_says(server: JudgeServer, scheme: str, rows: int) -> None:
    """``--check`` tells the most calls for a group; the usage is in the details once."""
    with Composer.from_config(config(server, scheme=scheme)) as composer:
        said = composer.components["tournament"].reward.model_calls(rows)
        composition = composer.compose(RewardBatch(["Why?"] * rows, TEXTS[:rows], group=[0] * rows))
    expected = {"listwise": 2, "round_robin": rows * (rows - 1), "anchor": 2 * (rows - 1)}
    assert said == len(server.seen)
    assert said == expected.get(scheme, said)
    usages = [entry.details.get("usage", {}) for entry in composition.rewards["tournament"].entries]
    assert [usage.get("calls") for usage in usages] == [said] + [None] * (rows - 1)
    assert usages[0]["tokens"] == 101 * said


@pytest.mark.parametrize(("comparisons", "pairs"), [(1, 7), (10, 10), (100, 28)])
def test_the_most_informative_pairs_are_as_many_as_asked_for(server: JudgeServer, comparisons: int, pairs: int) -> None:
    """At least those that tie eight completions together, at most all; none is asked about again; each round waits for the last."""
    totals = compose(server, *TEXTS, scheme="information", comparisons=comparisons).to_list()
    assert None not in totals
    assert len(server.seen) == 2 * pairs
    assert len({frozenset(texts.values()) for texts in server.seen}) == pairs


def test_each_pair_is_asked_about_in_both_orders(server: JudgeServer) -> None:
    """A judge that follows the place says nothing, and is flagged for it."""
    server.answer = lambda texts: {"1": 0.9, "2": 0.1}
    composition = compose(server, *TEXTS[:3])
    assert composition.to_list() == pytest.approx([0, 0, 0], abs=1e-9)
    assert composition.rewards["tournament"].entries[0].details["flags"] == ["flipped"]
    assert len({tuple(texts.values()) for texts in server.seen}) == 6


@pytest.mark.parametrize("scheme", SCHEMES)
def test_equal_completions_tie_without_a_call(server: JudgeServer, scheme: str) -> None:
    """They are one player; a group of equals asks nothing and is in the middle."""
    composition = compose(server, "aa", "aa", "aa", "aa", scheme=scheme)
    assert composition.to_list() == [0, 0, 0, 0]
    assert server.seen == []
    totals = compose(server, "aa", "a", "aa", "a", "aa", scheme=scheme).to_list()
    assert len(server.seen) == 2
    assert totals[0] == totals[2] == totals[4] == -totals[1] == -totals[3] > 0


def test_completions_of_other_prompts_are_not_compared(server: JudgeServer) -> None:
    """Each group has its own tournament; a group of one abstains, and one that answers two prompts has failed."""
    batch = RewardBatch(
        ["Why?", "Who?", "Why?", "Who?", "What?", "One?", "Two?"],
        ["a", "aa", "aaa", "b", "a", "a", "aa"],
        group=[0, 1, 0, 1, 2, 3, 3],
    )
    composition = compose(server, batch=batch)
    column = composition.rewards["tournament"]
    assert [column.status(row) for row in range(7)] == ["scored"] * 4 + ["abstained"] + ["failed"] * 2
    assert "alone in its group" in str(column.reason(4))
    assert "answer different prompts" in str(column.reason(5))
    assert len(server.seen) == 4
    with pytest.raises(BatchError, match="nothing tells which those are"):
        compose(server, batch=RewardBatch(["Why?"] * 2, ["a", "b"]))


class TestMemory:
    """With a ledger no verdict is paid for twice."""

    def test_a_group_that_grows_pays_for_the_new_pairs_only(self, server: JudgeServer, tmp_path: Any) -> None:
        """In whatever order its members come, and in another run."""
        first = compose(server, *TEXTS[:4], ledger=tmp_path / "ledger.sqlite")
        assert len(server.seen) == 12
        grown = compose(server, TEXTS[4], *TEXTS[3::-1], ledger=tmp_path / "ledger.sqlite")
        assert len(server.seen) == 12 + 8
        again = compose(server, *TEXTS[:5], ledger=tmp_path / "ledger.sqlite")
        assert len(server.seen) == 12 + 8
        assert again.to_list() == pytest.approx([*grown.to_list()[:0:-1], grown.to_list()[0]])
        assert first.to_list() != again.to_list()[:4]
        assert again.rewards["tournament"].cached.all()

    def test_without_a_ledger_nothing_is_kept(self, server: JudgeServer) -> None:
        """Each group pays."""
        for _ in range(2):
            compose(server, *TEXTS[:3])
        assert len(server.seen) == 12

    def test_a_failed_pair_is_asked_about_again_and_the_others_are_not(
        self, server: JudgeServer, tmp_path: Any
    ) -> None:
        """Failures are not remembered."""
        server.answer = lambda texts: None if set(texts.values()) == {"a", "aa"} else by_length(texts)
        compose(server, "a", "aa", "aaa", "", ledger=tmp_path / "ledger.sqlite")
        server.answer, server.seen = by_length, []
        assert None not in compose(server, "a", "aa", "aaa", "", "b", ledger=tmp_path / "ledger.sqlite").to_list()
        asked = {frozenset(texts.values()) for texts in server.seen}
        assert asked == {frozenset({"a", "aa"}), *(frozenset({"b", text}) for text in ("a", "aa", "aaa"))}

    def test_a_ranking_is_remembered_whole(self, server: JudgeServer, tmp_path: Any) -> None:
        """A list with another response is another question."""
        for texts in (TEXTS[:4], [*TEXTS[3::-1], TEXTS[0]], TEXTS[:5]):
            compose(server, *texts, scheme="listwise", ledger=tmp_path / "ledger.sqlite")
        assert [len(texts) for texts in server.seen] == [4, 4, 5, 5]


class TestFailures:
    """A failed comparison is left out, and what remains must tie the group together."""

    def test_a_failed_comparison_leaves_an_edge_out(self, server: JudgeServer) -> None:
        """The two still compare by the others."""
        server.answer = lambda texts: None if set(texts.values()) == {"a", "aaaa"} else by_length(texts)
        composition = compose(server, "a", "aa", "aaa", "aaaa")
        totals = composition.to_list()
        assert totals == sorted(totals)
        assert [composition.rewards["tournament"].entries[row].details["games"] for row in range(4)] == [2, 3, 3, 2]

    @pytest.mark.parametrize("scheme", ["round_robin", "anchor"])
    def test_a_completion_without_comparisons_is_unscored(self, server: JudgeServer, scheme: str) -> None:
        """With the judge's error; the others have their places among themselves."""
        server.answer = lambda texts: None if "aaaa" in texts.values() else by_length(texts)
        composition = compose(server, "a", "aa", "aaa", "aaaa", scheme=scheme)
        totals = composition.to_list()
        assert totals[3] is None
        assert None not in totals[:3]
        assert "400" in str(composition.rewards["tournament"].reason(3))

    @pytest.mark.parametrize("scheme", SCHEMES)
    def test_an_outage_scores_nobody(self, server: JudgeServer, scheme: str) -> None:
        """Not even above a completion without content, which loses without being asked about."""
        server.answer = lambda texts: None
        column = compose(server, "a", "aa", "", "aaa", scheme=scheme).rewards["tournament"]
        assert [column.status(row) for row in range(4)] == ["failed"] * 4

    def test_parts_that_failures_cut_apart_are_unscored(self, server: JudgeServer) -> None:
        """Two pairs that never met have no common scale."""
        server.answer = lambda texts: by_length(texts) if len({text[0] for text in texts.values()}) == 1 else None
        column = compose(server, "a", "aa", "ba", "baa").rewards["tournament"]
        assert [column.status(row) for row in range(4)] == ["failed"] * 4

    def test_a_completion_without_words_abstains(self, server: JudgeServer) -> None:
        """A call of a tool; what says nothing at all loses."""
        call = [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}]
        column = compose(server, "a", call, "", "aa").rewards["tournament"]
        assert [column.status(row) for row in range(4)] == ["scored", "abstained", "scored", "scored"]
        assert column.raw[2] < column.raw[0] < column.raw[3]
        alone = compose(server, "a", call).rewards["tournament"]
        assert "no other completion of its group has words" in str(alone.reason(0))

    @pytest.mark.parametrize(
        "reply", ['{"ranking": ["A", "B", "Z"]}', '{"ranking": ["A"]}', '{"ranking": ["A", "A", "B"]}', "A is best."]
    )
    def test_a_reply_that_is_no_ranking_scores_nobody(self, server: JudgeServer, reply: str) -> None:
        """Unknown, left out, named twice, or no JSON."""
        server.answer = lambda texts: reply
        column = compose(server, "a", "aa", "aaa", scheme="listwise", mode="verdict").rewards["tournament"]
        assert [column.status(row) for row in range(3)] == ["failed"] * 3
        assert "the judge's r" in str(column.reason(0))


def test_the_default_policy_leaves_a_torn_group_out(server: JudgeServer) -> None:
    """No completion gains an advantage from an outage that hit its neighbour."""
    server.answer = lambda texts: None if "aaaa" in texts.values() else by_length(texts)
    made = config(server)
    del made["rewards"]["tournament"]["on_failure"]
    texts = ["a", "aa", "aaa", "aaaa", "a", "aa"]
    with Composer.from_config(made) as composer:
        batch = RewardBatch(["Why?"] * 4 + ["Who?"] * 2, texts, group=[0] * 4 + [1] * 2)
        totals = composer.compose(batch).to_list()
    assert totals[:4] == [None] * 4
    assert None not in totals[4:]


def test_groups_over_two_batches_are_two_groups(server: JudgeServer) -> None:
    """A reward sees a batch at a time; a table is cut between groups, so that none is torn."""
    with Composer.from_config(config(server)) as composer:
        for texts in (["a", "aa"], ["aaa", "aaaa"]):
            totals = composer.compose(RewardBatch(["Why?"] * 2, texts, group=["g", "g"])).to_list()
            assert totals[0] == -totals[1] < 0


class TestAnchor:
    """Completions that are compared with one."""

    def test_the_group_median_by_length_is_the_anchor(self, server: JudgeServer) -> None:
        """It is in the middle itself."""
        compose(server, *TEXTS[:5], scheme="anchor")
        assert all("aaa" in texts.values() for texts in server.seen)
        assert len(server.seen) == 8

    def test_a_reference_is_the_anchor(self, server: JudgeServer) -> None:
        """The score is the chance to beat it, comparable between groups; without a reference a row abstains."""
        columns = {"gold": ["aa", "aa", "aa", "aaaa", "aaaa", None]}
        batch = RewardBatch(
            ["Why?"] * 6, ["a", "aa", "aaa", "aaa", "aaaaa", "a"], columns=columns, group=[0, 0, 0, 1, 1, 1]
        )
        composition = compose(server, batch=batch, scheme="anchor", reference_column="gold")
        chance = 1 / (1 + math.exp(1))
        expected = [2 * chance - 1, 0, 1 - 2 * chance, 2 * chance - 1, 1 - 2 * chance]
        assert composition.to_list()[:5] == pytest.approx(expected, abs=1e-6)
        assert composition.to_list()[5] is None
        assert "'gold' holds no text" in str(composition.rewards["tournament"].reason(5))
        with pytest.raises(BatchError, match="needs the column 'gold'"):
            compose(server, "a", "b", scheme="anchor", reference_column="gold")


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"scheme": "knockout"}, "scheme"),
        ({"rounds": 3}, "'rounds' is of scheme 'swiss'"),
        ({"scheme": "swiss", "comparisons": 9}, "'comparisons' is of scheme 'information'"),
        ({"scheme": "information", "comparisons": 0}, "comparisons"),
        ({"scheme": "swiss", "rounds": 0}, "rounds"),
        ({"scheme": "listwise", "orders": 0}, "orders"),
        ({"orders": 2}, "'orders' is of scheme 'listwise'"),
        ({"scheme": "swiss", "reference_column": "gold"}, "'reference_column' is of scheme 'anchor'"),
        ({"scheme": "anchor", "reference_column": "gold", "strength": "win_share"}, "'strength' has no use"),
        ({"scheme": "anchor", "reference_column": ""}, "reference_column"),
        ({"criteria": " "}, "'criteria' is empty"),
        ({"mode": "rating"}, "mode"),
        ({"backend_options": {"tempo": 1}}, "tempo"),
        ({"batch_size": 4}, "batch_size"),
    ],
)
def test_a_setting_that_is_refused_is_named(server: JudgeServer, params: dict[str, Any], said: str) -> None:
    """Before anything is asked."""
    with pytest.raises(ConfigError, match=said):
        compose(server, "a", "b", **params)
    assert server.seen == []


def test_every_setting_changes_the_version(server: JudgeServer) -> None:
    """By which a ledger knows the reward."""
    changes: list[dict[str, Any]] = [
        {},
        {"criteria": "harmlessness"},
        {"mode": "verdict"},
        {"strength": "win_share"},
        {"scheme": "swiss"},
        {"scheme": "swiss", "rounds": 2},
        {"scheme": "information"},
        {"scheme": "information", "comparisons": 9},
        {"scheme": "listwise"},
        {"scheme": "listwise", "seed": 1},
        {"scheme": "anchor"},
        {"scheme": "anchor", "reference_column": "gold"},
    ]
    base = {"model": "tiny", "base_url": server.url}
    assert len({SPEC.build(base | change).version for change in changes}) == len(changes)


def test_no_prompt_waits_for_another(server: JudgeServer) -> None:
    """The later rounds of one prompt are played while a comparison of another is still under way."""
    others_done, late = threading.Event(), []

    def answer(texts: dict[str, str]) -> dict[str, float]:
        if "slow" in "".join(texts.values()):
            if not others_done.wait(20):
                late.append(texts)
                others_done.set()
        elif len([seen for seen in server.seen if "slow" not in "".join(seen.values())]) == 12:
            others_done.set()  # all four players' three rounds, in both orders
        return by_length(texts)

    server.answer = answer
    texts = ["a", "aa", "aaa", "aaaa"]
    batch = RewardBatch(
        ["Why?"] * 4 + ["How?"] * 4, texts + [f"slow {text}" for text in texts], group=[0] * 4 + [1] * 4
    )
    composition = compose(server, batch=batch, scheme="swiss", rounds=3)
    assert not late
    assert None not in composition.to_list()
