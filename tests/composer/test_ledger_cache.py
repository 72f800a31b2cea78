"""The ledger's cache: what is known is not scored again, and only scores are known."""

import json
import threading

import numpy as np
import pytest

from rlaif_sdk import Composer, ConfigError, Credit, CreditSpan, Reward, RewardBatch, RewardError, Score, reward
from rlaif_sdk.composer import Component, Ledger
from rlaif_sdk.composer.ledger.cache import row_keys
from rlaif_sdk.exceptions import LedgerError
from rlaif_sdk.scoring import Recipe


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as opened:
        yield opened


class Counting(Reward):
    """Scores the length of a completion, and notes which it was asked for."""

    def __init__(self, answers=None):
        self.version = "7"
        self.answers = answers or {}

    def setup(self):
        asked.clear()

    def score(self, batch):
        asked.append(list(batch.completions))
        found = [self.answers.get(text, float(len(text))) for text in batch.completions]
        return [
            float("nan") if entry == "nan" else Score.failed("refused") if entry == "refuse" else entry
            for entry in found
        ]


asked: list[list[str]] = []


def batch_of(*completions, **fields):
    return RewardBatch(prompts=["p"] * len(completions), completions=list(completions), **fields)


def compose(ledger, batch, rewards=None, **options):
    with Composer(rewards or {"length": Counting()}, ledger=ledger, **options) as composer:
        return composer.compose(batch)


class Remembering(Reward):
    """Scores the letters of a text, each of which it looks up once."""

    version = "1"

    def __init__(self, step=1.0):
        self.step = step

    def setup(self):
        asked.clear()

    def score(self, batch):
        scores = []
        for text in batch.completion_texts:
            known = self.memory.get([["letter", letter] for letter in text])
            unknown = [letter for letter, finding in zip(text, known, strict=True) if finding is None]
            asked.append(unknown)
            self.memory.put((["letter", letter], Score(self.step, details={"of": letter})) for letter in unknown)
            scores.append(sum(self.step if finding is None else finding.value for finding in known))
        return scores


def test_what_a_score_is_made_of_is_asked_for_once(tmp_path):
    """In other rows, after a restart, and not for other parameters; without a ledger nothing is known."""
    file = tmp_path / "ledger.sqlite"
    with Ledger(file) as ledger:
        assert compose(ledger, batch_of("ab", "bc"), {"r": Remembering()}).to_list() == [2, 2]
        assert asked == [["a", "b"], ["c"]]
    with Ledger(file) as ledger:
        assert compose(ledger, batch_of("cab", "d"), {"r": Remembering()}).to_list() == [3, 1]
        assert asked == [[], ["d"]]
        assert compose(ledger, batch_of("ab"), {"r": Remembering(step=2.0)}).to_list() == [4]
        assert asked == [["a", "b"]]
    with Ledger(file, cache=False) as ledger:
        compose(ledger, batch_of("ab"), {"r": Remembering()})
        assert asked == [["a", "b"]]


def test_a_reward_is_known_by_what_it_is_made_of_whatever_it_remembers(ledger):
    """In a second composer too; and something of its own by that name is left to it."""
    reward, own = Remembering(), Remembering()
    own.memory = {"seen": 3}
    assert compose(ledger, batch_of("ab"), {"r": reward}).rewards["r"].cached.tolist() == [False]
    assert compose(ledger, batch_of("ab"), {"r": reward}).rewards["r"].cached.tolist() == [True]
    with Composer({"r": own}, ledger=ledger):
        assert own.memory == {"seen": 3}


def test_equal_rows_of_a_batch_are_scored_once_and_known_rows_never_again(ledger):
    """The reward sees each new text once; answers go back to every row that asked."""
    first = compose(ledger, batch_of("a", "bb", "a", "bb", "ccc"))
    assert asked == [["a", "bb", "ccc"]]
    assert first.totals.tolist() == [1, 2, 1, 2, 3]
    assert first.rewards["length"].cached.tolist() == [False, False, True, True, False]
    second = compose(ledger, batch_of("ccc", "dddd", "a"))
    assert asked == [["dddd"]]
    assert second.totals.tolist() == [3, 4, 1]
    assert [second.rewards["length"].status(row) for row in range(3)] == ["cached", "scored", "cached"]
    assert second.metrics()["reward/length/cached"] == 2
    assert not compose(ledger, batch_of("a", "ccc")).rewards["length"].failures
    assert asked == []


def test_failures_refusals_and_abstentions_are_asked_for_again(ledger):
    """Only a finite score within its range is kept."""
    answers = {"none": None, "nan": "nan", "refuse": "refuse", "far": 1e9}
    rewards = {"length": Counting(answers)}
    rewards["length"].range = (0, 100)
    texts = ["none", "nan", "refuse", "far", "fine"]
    for expected in (texts, texts[:4]):
        column = compose(ledger, batch_of(*texts), rewards).rewards["length"]
        assert asked == [expected]
        assert set(column.failures) == {1, 2, 3}
        assert column.raw[4] == 4
    assert [entry.scores for entry in ledger.cached_rewards()] == [1]


def test_a_call_that_fails_altogether_leaves_what_is_known(ledger):
    """The known row keeps its score while the server is down."""

    class Down(Counting):
        down = False

        def score(self, batch):
            if self.down:
                raise OSError("the server is down")
            return super().score(batch)

    down = Down()
    compose(ledger, batch_of("a"), {"length": down})
    down.__class__.down = True
    column = compose(ledger, batch_of("a", "bb"), {"length": down}).rewards["length"]
    assert column.raw[0] == 1
    assert "the server is down" in column.failures[1]
    down.__class__.down = False


def test_reason_details_and_credit_come_back_and_usage_does_not(ledger):
    """A look-up says what the reward said, and costs nothing."""

    def judge(completions):
        credit = Credit(turns=[0.1], spans=(CreditSpan(0, 1, 0.2, "good"),), rest=0.2, view="answer")
        details = {"votes": [1, 2], "usage": {"tokens": 9}}
        return [Score(0.5, reason="so", details=details, credit=credit) for _ in completions]

    compose(ledger, batch_of("a"), {"judge": judge})
    score = compose(ledger, batch_of("a"), {"judge": judge}).rewards["judge"].score(0)
    assert score == Score(
        0.5, "so", {"votes": [1, 2]}, Credit(None, [0.1], (CreditSpan(0, 1, 0.2, "good"),), 0.2, "answer")
    )


def test_each_part_of_the_input_that_a_function_reads_tells_rows_apart(ledger):
    """Prompt, completion and the columns of its signature count; other columns do not."""
    seen = []

    def agrees(completions, answer):
        seen.extend(completions)
        return [float(want in text) for text, want in zip(completions, answer, strict=True)]

    def ask(prompt, completion, **columns):
        seen.clear()
        columns = {name: [value] for name, value in columns.items()}
        compose(ledger, RewardBatch(prompts=[prompt], completions=[completion], columns=columns), {"agrees": agrees})
        return len(seen)

    assert ask("p", "c", answer="x", note=1) == 1
    assert ask("p", "c", answer="x", note=2) == 0
    assert ask("p", "c", answer="y", note=1) == 1
    assert ask("q", "c", answer="x", note=1) == 1
    assert ask("p", "d", answer="x", note=1) == 1


BUNDLED = {
    "conciseness": {"target": 5},
    "execution": {},
    "factuality": {},
    "judge": {"model": "x", "backend": "openai", "base_url": "http://127.0.0.1:1/v1"},
    "onnx": {"model": "x"},
    "reward_model": {"model": "x"},
    "text_classification": {"model": "x"},
    "toxicity": {},
}


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_reward_says_what_it_reads(name):
    """So that another column, with a group or without, does not make the ledger miss."""
    with Composer.from_config({"rewards": {name: {"params": BUNDLED[name]}}}) as composer:
        reward = composer.components[name].reward
    assert reward.inputs is not None
    columns = {column: ["x"] for column in reward.inputs}
    batches = [
        RewardBatch(["p"], ["c"], columns=columns | others, group=group)
        for others in ({}, {"note": [1]}, {"note": [{"a": [2]}]})
        for group in (None, ["g"])
    ]
    assert len({row_keys("f", batch, reward.inputs)[0] for batch in batches}) == 1


def test_a_reward_that_does_not_say_what_it_reads_is_asked_again_when_any_column_differs(ledger):
    """All columns and the token ids count."""
    for fields in (
        {"columns": {"note": [1]}},
        {"columns": {"note": [2]}},
        {"completion_ids": [[1]]},
        {"completion_ids": [[2]]},
    ):
        compose(ledger, batch_of("a", **fields))
        assert asked == [["a"]]
        compose(ledger, batch_of("a", **fields))
        assert asked == []


def test_no_row_can_be_taken_for_another():
    """Texts that would run together are told apart, and so are text and JSON that look alike."""

    def keys(prompt, completion, **columns):
        batch = RewardBatch([prompt], [completion], columns={name: [value] for name, value in columns.items()})
        (key,) = row_keys("f", batch, None)
        return key

    turns = [{"role": "user", "content": "a"}]
    rows = [("ab", "c"), ("a", "bc"), ("", "abc"), ("a", "b", "c"), ("\ud800", ""), (turns, "c"), (str(turns), "c")]
    found = [keys(*row[:2], **({"x": row[2]} if len(row) > 2 else {})) for row in rows]
    found += [keys("a", "b", y="c"), keys("a", "b", x=1), keys("a", "b", x="1"), keys("a", "b", x=None), keys("a", "b")]
    found += [keys("a", "b", x=np.array([1, 2])), keys("a", "b", x=[1, 2, 3])]
    assert len(set(found)) == len(found)
    assert keys("a", "b", x=np.array([1, 2])) == keys("a", "b", x=[1, 2])


def test_other_params_version_or_revision_are_another_reward(ledger):
    """Nothing scored under one of them is taken for a score under another."""

    def count_of(**change):
        scorer = Counting({"z": change.pop("answer", 0.0)})
        vars(scorer).update(change)
        compose(ledger, batch_of("a"), {"length": scorer})
        return len(asked)

    assert count_of() == 1
    assert count_of() == 0
    assert count_of(version="8") == 1
    assert count_of(revision="abc") == 1
    assert count_of(answer=1.0) == 1


def test_edited_code_is_another_reward(ledger, tmp_path):
    """A function in a file has no version that anybody would change; the same file elsewhere is the same reward."""
    for folder, value, status in (("one", 1.0, "scored"), ("copy", 1.0, "cached"), ("edited", 2.0, "scored")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(
            f"def score(completions):\n    return [{value} for _ in completions]\n"
        )
        config = {"rewards": {"mine": {"use": "./mine.py:score"}}, "ledger": str(ledger.path.absolute())}
        (tmp_path / folder / "config.json").write_text(json.dumps(config))
        with Composer.from_config(tmp_path / folder / "config.json") as composer:
            composition = composer.compose(batch_of("a"))
        assert composition.totals[0] == value
        assert composition.rewards["mine"].status(0) == status


def test_two_functions_of_one_factory_are_not_mixed_up(ledger):
    """What a closure holds counts as a parameter."""

    def constant(value):
        def score(completions):
            return [value for _ in completions]

        return score

    assert compose(ledger, batch_of("a"), {"r": constant(1.0)}).totals[0] == 1
    assert compose(ledger, batch_of("a"), {"r": constant(2.0)}).totals[0] == 2


def test_a_version_that_is_known_only_after_setup_counts(ledger):
    """A model that was replaced under the same path is asked anew."""

    class Loads(Counting):
        revision_on_disk = "1"

        def setup(self):
            super().setup()
            self.version = type(self).revision_on_disk

    compose(ledger, batch_of("a"), {"length": Loads()})
    compose(ledger, batch_of("a"), {"length": Loads()})
    assert asked == []
    Loads.revision_on_disk = "2"
    compose(ledger, batch_of("a"), {"length": Loads()})
    assert asked == [["a"]]


def test_a_reward_in_a_worker_process_is_cached_under_the_version_that_it_has_there(ledger, tmp_path):
    """Its setup runs in the worker, so the parent's object does not know."""
    module = tmp_path / "worker_reward.py"
    module.write_text(
        "from pathlib import Path\n"
        "class Loads:\n"
        "    def setup(self):\n"
        f"        self.version = Path({str(tmp_path)!r}, 'version').read_text()\n"
        "    def score(self, batch):\n"
        "        return [float(self.version)] * len(batch)\n"
    )
    config = {
        "rewards": {"loads": {"use": f"{module}:Loads", "execution": {"isolation": "process"}}},
        "ledger": str(ledger.path),
    }
    for version, statuses in (("1", "scored"), ("1", "cached"), ("2", "scored")):
        (tmp_path / "version").write_text(version)
        with Composer.from_config(config) as composer:
            composition = composer.compose(batch_of("a"))
        assert composition.totals[0] == float(version)
        assert composition.rewards["loads"].status(0) == statuses


@pytest.mark.parametrize("how", ["component", "reward", "function", "ledger"])
def test_a_reward_that_is_not_to_be_cached_is_always_asked(ledger, how):
    """By the composition, by the reward itself, or by the ledger; equal rows are then scored each."""
    scorer = Counting()
    if how == "reward":
        scorer.cacheable = False
    if how == "ledger":
        ledger.cache = False
    seen = []
    if how == "function":

        @reward(cacheable=False)
        def scorer(completions):
            seen.append(list(completions))
            return [1.0] * len(completions)

    part = Component(scorer, cache=how != "component")
    for _ in range(2):
        column = compose(ledger, batch_of("a", "a"), {"length": part}).rewards["length"]
        assert (seen or asked)[-1] == ["a", "a"]
        assert column.cached is None
    assert ledger.cached_rewards() == []


def test_a_reward_that_nothing_identifies_is_not_cached_and_that_is_said(ledger):
    """An object made of things without a JSON form may equal another in name and differ in all else."""
    scorer = Counting({"a": 3.0})
    scorer.client = threading.Lock()
    with pytest.warns(UserWarning, match=r"reward 'length' is not cached.*a lock, which has no JSON form"):
        composition = compose(ledger, batch_of("a", "a"), {"length": scorer})
    assert composition.rewards["length"].cached is None


def test_parameters_stay_out_of_the_file(ledger):
    """They may hold a key; only a digest is written."""
    component = Component(Counting(), recipe=Recipe("counting", {"api_key": "sk-secret"}))
    compose(ledger, batch_of("a"), {"length": component})
    ledger.close()
    assert b"sk-secret" not in b"".join(path.read_bytes() for path in ledger.path.parent.iterdir())


def test_threads_share_a_ledger(ledger):
    """Eight threads that compose at once lose nothing."""
    errors = []

    def work(number):
        try:
            for part in range(5):
                compose(ledger, batch_of(*(f"{number}-{part}-{index}" for index in range(20))), {"n": len_of})
        except Exception as error:  # noqa: BLE001 - told by the test
            errors.append(error)

    def len_of(completions):
        return [float(len(text)) for text in completions]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert sum(entry.scores for entry in ledger.cached_rewards()) == 8 * 5 * 20
    assert sum(run.rows for run in ledger.runs()) == 8 * 5 * 20


def test_a_fallback_is_cached_under_its_own_name_and_never_as_the_reward(ledger):
    """When the reward works again it is asked, although its fallback's score is known."""

    class Shaky(Counting):
        def score(self, batch):
            asked.append(list(batch.completions))
            raise OSError("down")

    parts = {"length": Component(Shaky(), fallback="spare")}
    for status in ("fallback", "fallback"):
        found = compose(ledger, batch_of("a"), parts, fallbacks={"spare": lambda completions: [5.0] * len(completions)})
        assert found.totals[0] == 5
        assert found.rewards["length"].status(0) == status
        assert asked == [["a"]]
    assert [entry.scores for entry in ledger.cached_rewards()] == [1]


def test_config_names_the_ledger_beside_itself_and_what_it_does(tmp_path):
    """The path is relative to the config; the short form caches and records; `cache: false` holds for one reward."""
    (tmp_path / "mine.py").write_text("def a(completions):\n    return [1.0 for _ in completions]\n\nb = a\n")
    (tmp_path / "c.yaml").write_text(
        "ledger: runs/ledger.sqlite\nrewards:\n  a: {use: './mine.py:a'}\n  b: {use: './mine.py:b', cache: false}\n"
    )
    with Composer.from_config(tmp_path / "c.yaml") as composer:
        composer.compose(batch_of("x", "x"))
    with Ledger.find(tmp_path / "runs") as ledger:
        assert [entry.name for entry in ledger.cached_rewards()] == ["./mine.py:a"]
        (run,) = ledger.runs()
        assert (run.batches, run.rows, set(run.rewards)) == (1, 2, {"a", "b"})
    (tmp_path / "c.yaml").write_text("ledger: c.yaml\nrewards:\n  a: {use: './mine.py:a'}\n")
    with pytest.raises(ConfigError, match=r"c\.yaml:1: ledger: .*another kind, and no ledger"):
        Composer.from_config(tmp_path / "c.yaml")


def test_a_run_that_cannot_be_recorded_ends_with_a_ledger_error(ledger, monkeypatch):
    """Not as a failed reward, which a policy could hide."""

    def broken(*_, **__):
        raise LedgerError("no room")

    monkeypatch.setattr(type(ledger._database), "run", broken)
    with pytest.raises(LedgerError, match="no room"):
        compose(ledger, batch_of("a"))


def test_the_policy_raise_still_raises_with_a_ledger(ledger):
    """A failure among rows that were looked up is a failure."""
    from rlaif_sdk.composer import FailurePolicy

    part = Component(Counting({"bad": "nan"}), failure=FailurePolicy("raise"))
    compose(ledger, batch_of("a"), {"length": part})
    with pytest.raises(RewardError, match="first on row 2 of the batch: returned nan"):
        compose(ledger, batch_of("a", "bad"), {"length": part})
