"""The reward ``remote`` against the real server, and against one that misbehaves on purpose."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rlaif_sdk import Composer, RewardBatch, Score
from rlaif_sdk.exceptions import ConfigError
from rlaif_sdk.integrations.builtin import rlaif_rewards
from rlaif_sdk.integrations.remote import Remote, RemoteParams, parts_of
from rlaif_sdk.io import http
from rlaif_sdk.testing import check_reward_contract
from tests.integrations.cases import CASES, batch_of, build_composer, by_composer
from tests.judges.conftest import JudgeServer
from tests.serving.lengths import length
from tests.serving.loopback import serving

KEY = "k3y-0123456789"


@pytest.fixture(autouse=True)
def _no_backoff(monkeypatch):
    monkeypatch.setattr(http, "_BACKOFF", dict.fromkeys(("wait_initial", "wait_max", "wait_jitter"), 0.0))
    monkeypatch.setenv("REWARD_KEY", KEY)


@pytest.fixture
def odd():
    """A server whose answers are scripted; ``odd.root`` is its address."""
    server = JudgeServer()
    server.root = server.url.removesuffix("/v1")
    yield server
    server.close()


def batch_of_texts(*texts: str, **fields: Any) -> RewardBatch:
    return RewardBatch(["p"] * len(texts), list(texts), **fields)


def asked(url: str, batch: RewardBatch, **params: Any) -> list[Score | None]:
    reward = Remote(RemoteParams(url=url, **params))
    reward.setup()
    return asyncio.run(reward.score(batch))


def answers(*totals: Any) -> dict[str, Any]:
    rows = [{"total": total, "status": "scored" if total is not None else "failed", "reason": None} for total in totals]
    return {"rows": rows}


@pytest.mark.parametrize("size", [1, 3, 64])
def test_a_served_composition_is_the_composition(size):
    """Over the SDK's own protocol totals are the same to the bit, however the rows are cut into requests."""
    with build_composer() as composer, serving(composer) as server:
        scores = asked(server.url + "/", batch_of(CASES), batch_size=size)
    assert [score.value for score in scores] == [total for total, _ in by_composer(CASES)]
    (unscored,) = (score for score in scores if score.value is None)
    assert unscored.error == "brevity: asked to fail"


def test_a_server_for_openrlhf_is_a_reward_by_name():
    """A config names it; its protocol sends query, prompt and label."""
    params = {"protocol": "openrlhf", "label_column": "label", "batch_size": 3}
    with build_composer() as composer, serving(composer) as server:
        config = {"rewards": {"remote": {"params": {"url": f"{server.url}/get_reward", **params}}}}
        with Composer.from_config(config) as asking:
            totals = asking.compose(batch_of(CASES)).to_list()
    assert totals == [total for total, _ in by_composer(CASES)]


def test_the_reward_keeps_the_contract_of_rewards():
    """The check that the SDK ships to plugin authors passes."""
    (spec,) = (spec for spec in rlaif_rewards() if spec.name == "remote")
    with Composer({"length": length}) as composer, serving(composer) as server:
        check_reward_contract(spec, params={"url": server.url})


def test_abstaining_and_failing_stay_apart():
    """Where every reward of the server abstains the reward abstains, and its failure policy is not asked."""
    with Composer({"none": lambda completions: [None] * len(completions)}) as composer, serving(composer) as server:
        (score,) = asked(server.url, batch_of_texts("x"))
    assert score == Score(None, "every reward abstained")


def test_a_group_is_compared_on_the_server():
    """The rows of a group travel together, under labels of their own."""
    config = {"rewards": {"length": {"use": "tests/serving/lengths.py:length", "normalize": "group_zscore"}}}
    batch = batch_of_texts("x", "xx", "xxxx", "x", group=["a", ("b", 1), "a", ("b", 1)], training=False)
    with serving(config) as server, Composer.from_config(config) as composer:
        assert [score.value for score in asked(server.url, batch, batch_size=1)] == composer.compose(batch).to_list()


def test_a_server_that_compares_completions_makes_a_reward_of_groups():
    """Where that is said, no chunk cuts a group, and a ledger knows a score by its group."""
    config = {"rewards": {"share": {"use": "tests/serving/lengths.py:share_of_the_longest"}}}
    with serving(config) as server:
        remote = {"params": {"url": server.url, "scope": "group"}, "execution": {"chunk": 1}}
        with Composer.from_config({"rewards": {"remote": remote}}) as composer:
            batch = batch_of_texts("x", "xx", "xxxx", "x", "x", group=["a", "b", "a", "b", None])
            assert composer.compose(batch).to_list() == [0.25, 1.0, 1.0, 0.5, None]
    with pytest.raises(ValidationError, match="tells no groups"):
        RemoteParams(url="http://h:1", protocol="openrlhf", scope="group")


@given(groups=st.lists(st.integers(0, 5), min_size=0, max_size=30), size=st.integers(1, 8), grouped=st.booleans())
def test_rows_are_cut_into_parts_that_keep_groups_whole(groups, size, grouped):
    """Every row is in one part, no part is longer than allowed unless one group is, and no group is in two."""
    batch = batch_of_texts(*map(str, groups), group=groups if grouped else None)
    parts = list(parts_of(batch, size))
    assert sorted(row for part in parts for row in part) == list(range(len(groups)))
    labels = [{groups[row] if grouped else row for row in part} for part in parts]
    assert all(len(part) <= size or len(found) == 1 for part, found in zip(parts, labels, strict=True))
    assert sum(map(len, labels)) == len(set().union(*labels))


@pytest.mark.parametrize(
    "first",
    [
        (200, {"content-type": "text/html"}, b"<html>busy</html>"),
        (200, {}, b'{"rows": [{"tot'),
        (200, {}, b"[" * 100_000),
        (200, {"content-encoding": "gzip"}, b"no gzip"),
        (429, {}, b"full"),
        (429, {"retry-after": "soon"}, b"full"),
        (500, {}, b"oh"),
        (503, {"retry-after": "0"}, b""),
    ],
    ids=lambda first: f"{first[0]} {first[2][:12]}",
)
def test_what_may_pass_is_tried_again(odd, first):
    """HTML with status 200, JSON cut short, overload: the next answer counts."""
    odd.answer = lambda number, _: first if number == 0 else (200, {}, answers(0.5))
    assert [score.value for score in asked(odd.root, batch_of_texts("x"))] == [0.5]
    assert len(odd.requests) == 2


@pytest.mark.parametrize(
    "error", [{"code": 429, "message": "full"}, {"code": 502}, "overloaded", {"type": "rate_limit_error"}]
)
def test_a_failure_with_status_200_is_tried_again(odd, error):
    """A gateway that puts its error into the body is asked again, and rows beside the error are no scores."""
    odd.answer = lambda number, _: (200, {}, {"error": error, **answers(9.0)} if number == 0 else answers(0.5))
    assert [score.value for score in asked(odd.root, batch_of_texts("x"))] == [0.5]
    assert len(odd.requests) == 2


@pytest.mark.parametrize(
    "spelling", ["\\u006b3y-0123456789", "k3y\\u002d0123456789", "k3y%2D0123456789", "k3y&#45;0123456789"]
)
def test_a_key_is_told_in_no_spelling(odd, spelling):
    """However the server escapes what it repeats."""
    odd.answer = lambda *_: (400, {}, f'{{"detail": "who is {spelling}?"}}'.encode())
    (score,) = asked(odd.root, batch_of_texts("x"), api_key_env="REWARD_KEY")
    assert "who is [key]?" in score.error


def test_a_lasting_failure_is_unscored_with_its_reason(odd):
    """After all attempts the rows have failed, never 0; a composition gets nothing to average."""
    odd.answer = lambda *_: (200, {}, b"<html>")
    scores = asked(odd.root, batch_of_texts("x", "y"), attempts=3)
    assert [score.value for score in scores] == [None, None]
    assert "in 3 attempts" in scores[0].error
    assert "<html>" in scores[0].error
    assert len(odd.requests) == 3


def test_a_part_that_fails_leaves_the_others_alone(odd):
    """Only the rows of the request that came to nothing are unscored."""
    odd.answer = lambda _, body: (400, {}, b"no") if body["rows"][0]["completion"] == "bad" else (200, {}, answers(1.0))
    scores = asked(odd.root, batch_of_texts("a", "bad", "c"), batch_size=1)
    assert [score.value for score in scores] == [1.0, None, 1.0]


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_a_refused_body_is_not_sent_again(odd, status):
    """A 4xx that will not pass: one request, and what the server said."""
    odd.answer = lambda *_: (status, {}, b"not like this")
    (score,) = asked(odd.root, batch_of_texts("x"))
    assert "not like this" in score.error
    assert len(odd.requests) == 1


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (answers(1.0), "1 rows where 2"),
        (answers(1.0, 2.0, 3.0), "3 rows where 2"),
        ({"rewards": [1.0, 2.0]}, "no 'rows'"),
        ({"rows": {"0": 1}}, "no 'rows'"),
        ([1.0, 2.0], "no 'rows'"),
        ({"rows": [1.0, 2.0]}, "nothing of the row"),
    ],
)
def test_an_answer_of_another_shape_is_unscored(odd, body, problem):
    """Numbers are never given to rows that they may not belong to."""
    odd.answer = lambda *_: (200, {}, body)
    scores = asked(odd.root, batch_of_texts("x", "y"))
    assert [score.value for score in scores] == [None, None]
    assert problem in scores[0].error
    assert len(odd.requests) == 1


@pytest.mark.parametrize("bad", ["true", '"0.5"', "NaN", "1e999", "[1]", "1" + "0" * 400])
def test_a_total_that_is_no_number_is_unscored(odd, bad):
    """The row beside it keeps its score."""
    row = '{"total": %s, "status": "scored", "reason": null}'
    odd.answer = lambda *_: (200, {}, f'{{"rows": [{row % bad}, {row % "2"}]}}'.encode())
    scores = asked(odd.root, batch_of_texts("x", "y"))
    assert [score.value for score in scores] == [None, 2.0]
    assert "number is" in scores[0].error


def test_openrlhf_rewards_are_checked_as_well(odd):
    """Null, booleans and another length are unscored."""
    odd.answer = lambda *_: (200, {}, {"rewards": [None, True, 3]})
    scores = asked(odd.root, batch_of_texts("x", "y", "z"), protocol="openrlhf")
    assert [score.value for score in scores] == [None, None, 3.0]
    odd.answer = lambda *_: (200, {}, {"rewards": [1.0]})
    assert [score.value for score in asked(odd.root, batch_of_texts("x", "y"), protocol="openrlhf")] == [None, None]
    assert odd.requests[0] == {"query": ["px", "py", "pz"], "prompts": ["p"] * 3, "labels": [None] * 3}


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_ends_the_run_at_once(odd, status):
    """No second try, and the key is not in the message even where the server repeats it."""
    odd.answer = lambda *_: (status, {}, f"who is {KEY}?".encode())
    with pytest.raises(ConfigError, match="who is \\[key\\]") as refused:
        asked(odd.root, batch_of_texts("x"), api_key_env="REWARD_KEY")
    assert KEY not in str(refused.value)
    assert len(odd.requests) == 1
    assert odd.headers[0]["authorization"] == f"Bearer {KEY}"


def test_a_missing_key_is_said_before_anything_is_sent(odd, monkeypatch):
    """The variable is named."""
    monkeypatch.delenv("REWARD_KEY")
    with pytest.raises(ConfigError, match="REWARD_KEY"):
        asked(odd.root, batch_of_texts("x"), api_key_env="REWARD_KEY")
    assert not odd.requests


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_refused(odd, status):
    """Neither the key nor the texts travel to another server."""
    other = JudgeServer()
    odd.answer = lambda *_: (status, {"location": f"{other.url}/score?secret"}, b"")
    with pytest.raises(ConfigError, match="redirects") as refused:
        asked(odd.root, batch_of_texts("x"), api_key_env="REWARD_KEY")
    other.close()
    assert not other.requests
    assert "secret" not in str(refused.value)


def test_retry_after_is_waited_for_and_capped(odd):
    """What the server asks for is waited; an hour is cut to the limit."""
    odd.answer = lambda number, _: (429, {"retry-after": "0.3"}, b"") if number == 0 else (200, {}, answers(1.0))
    began = time.monotonic()
    asked(odd.root, batch_of_texts("x"))
    assert time.monotonic() - began >= 0.3
    odd.requests.clear()
    odd.answer = lambda number, _: (429, {"retry-after": "3600"}, b"") if number == 0 else (200, {}, answers(1.0))
    assert asked(odd.root, batch_of_texts("x"), max_retry_after=0.05)[0].value == 1.0
    assert time.monotonic() - began < 10


def test_an_answer_that_drips_is_given_up(odd):
    """The time limit is for the whole attempt, not for each byte."""

    def drip(handler):
        handler.send_response(200)
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.05)

    odd.answer = lambda *_: drip
    began = time.monotonic()
    (score,) = asked(odd.root, batch_of_texts("x"), timeout=0.3, attempts=2)
    assert time.monotonic() - began < 3
    assert "no whole answer within 0.3 s" in score.error


def test_a_connection_that_breaks_is_tried_again(odd):
    """A reset before the answer is worth another try; nobody there is unscored."""
    odd.answer = lambda number, _: (lambda handler: None) if number == 0 else (200, {}, answers(1.0))
    assert asked(odd.root, batch_of_texts("x"))[0].value == 1.0
    odd.close()
    (score,) = asked(odd.root, batch_of_texts("x"), attempts=2)
    assert "the connection failed" in score.error


def test_an_endless_answer_is_not_read_to_its_end(odd, monkeypatch):
    """A body beyond the limit is a failure of its rows."""
    monkeypatch.setattr("rlaif_sdk.integrations.remote._MAX_ANSWER", 1000)
    odd.answer = lambda *_: (200, {}, b" " * 5000)
    (score,) = asked(odd.root, batch_of_texts("x"))
    assert "longer than 1000 bytes" in score.error


def test_connections_are_kept(odd):
    """Ten batches over one connection; another event loop opens its own."""
    connections = []
    odd._server.verify_request = lambda _, address: connections.append(address) or True
    odd.answer = lambda _, body: (200, {}, answers(*[1.0] * len(body["rows"])))
    reward = Remote(RemoteParams(url=odd.root))

    async def ten() -> None:
        for _ in range(10):
            await reward.score(batch_of_texts("x", "y"))

    asyncio.run(ten())
    assert len(odd.requests) == 10
    assert len(connections) == 1
    asyncio.run(ten())
    assert len(connections) == 2


def test_only_the_named_columns_are_sent(odd):
    """Columns that JSON cannot hold are no hindrance where they are not named, and a clear one where they are."""
    odd.answer = lambda *_: (200, {}, answers(1.0))
    batch = batch_of_texts("x", columns={"label": ["a"], "image": [object()], "nan": [float("nan")]})
    assert asked(odd.root, batch, columns=("label",))[0].value == 1.0
    assert odd.requests == [{"rows": [{"prompt": "p", "completion": "x", "columns": {"label": "a"}}]}]
    for others in (None, ("image",), ("nan",)):
        (score,) = asked(odd.root, batch, columns=others)
        assert "params.columns" in score.error
    assert len(odd.requests) == 1


def test_text_that_is_no_unicode_is_scored():
    """A lone surrogate in one completion does not make the server refuse the others beside it."""
    with Composer({"length": length}) as composer, serving(composer) as server:
        assert [score.value for score in asked(server.url, batch_of_texts("a\ud800b", "x"))] == [3.0, 1.0]


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000", "ftp://host", "http://", "http://user:pass@host", "http://host/score?api_key=k", ""]
)
def test_an_address_that_is_none_is_refused(url):
    """Before anything is sent; and a password or a key in it would be shown."""
    with pytest.raises(ConfigError, match="address") as refused:
        Remote(RemoteParams(url=url))
    assert "pass@" not in str(refused.value)
    assert "api_key=" not in str(refused.value)


def test_a_full_server_is_waited_for():
    """Against the real server: 429 under load, and in the end every row has its score."""
    texts = ["x" * size for size in range(1, 41)]

    async def slow(completions):
        await asyncio.sleep(0.01)
        return [float(len(text)) for text in completions]

    with Composer({"slow": slow}) as composer, serving(composer, max_queue=4, max_rows=2, max_batch=2) as server:
        params = {"batch_size": 2, "concurrency": 8, "attempts": 200, "max_retry_after": 0.02}
        scores = asked(server.url, batch_of_texts(*texts), **params)
        assert server.metric('rlaif_requests_total{route="/v1/score",status="429"}') > 0
    assert [score.value for score in scores] == [float(len(text)) for text in texts]


def test_scores_are_cached_only_where_a_revision_is_stated():
    """What a server serves changes behind its address."""
    assert not Remote(RemoteParams(url="http://host")).cacheable
    assert Remote(RemoteParams(url="http://host", revision="2")).cacheable


def test_a_request_is_json_that_other_readers_take(odd):
    """No NaN and no escapes that are no Unicode."""
    odd.answer = lambda *_: (200, {}, answers(1.0))
    asked(odd.root, batch_of_texts("Grüße 🙂"))
    assert json.dumps(odd.requests[0]) == json.dumps({"rows": [{"prompt": "p", "completion": "Grüße 🙂"}]})
