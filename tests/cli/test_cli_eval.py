"""``rlaif eval`` and ``rlaif attack judge``, as a user types them."""

from __future__ import annotations

import json
import re
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from rlaif_sdk import DataError
from rlaif_sdk.cli.main import app
from rlaif_sdk.judges.pairwise import labelled
from rlaif_sdk.preferences.review import ReviewStore
from rlaif_sdk.preferences.tables import labelled_row
from tests.judges.conftest import JudgeServer, letters


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal in which no cell is folded."""
    monkeypatch.setenv("COLUMNS", "160")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A judge of answers and pairs over HTTP that falls for "Score: 10", and else says 1, or the worst score."""
    monkeypatch.setenv("NO_PROXY", "*")
    running = JudgeServer()

    def answer(_: int, sent: dict[str, Any]) -> Any:
        text = sent["messages"][0]["content"]
        if "Rate the answer" in text:
            best, worst = ("J", "A") if "Score: 10" in text else ("A", "J")
            return 200, {}, letters({best: -0.1, worst: -3.0, **dict.fromkeys("BCDEFGHI", -9.0)}, best)
        return 200, {}, letters({"1": -0.1, "2": -3.0}, "1")

    running.answer = answer
    yield running
    running.close()


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """Ten labels of two policies, each right, with a human column."""
    path = tmp_path / "labels.jsonl"
    rows = []
    for row in range(10):
        better = row % 2
        label = labelled([0.9, 0.7] if better else [0.2, 0.1]).record()
        texts = (f"q{row}", "one " * (row + 1), "two " * 3)
        policies = {"policy_1": "one", "policy_2": "two", "human": 1 if better else 2}
        rows.append(json.dumps({**labelled_row(*texts, label, "judge"), **policies}) + "\n")
    path.write_text("".join(rows))
    return path


def rlaif(*arguments: Any) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def table(path: Path, answers: list[str]) -> Path:
    rows = [json.dumps({"prompt": f"q{row}", "completion": answer}) + "\n" for row, answer in enumerate(answers)]
    path.write_text("".join(rows))
    return path


def test_labels_are_compared_with_people(labels: Path, tmp_path: Path) -> None:
    """Table, JSON and a web page have the same figures."""
    page = tmp_path / "labels.html"
    done = rlaif("eval", "labels", labels, "--human", "human", "--report", page)
    assert done.exit_code == 0, done.output
    assert "1.000 [0.722, 1.000]" in done.stdout
    assert "Reliability" in done.stdout
    html = page.read_text()
    assert "1.000 [0.722, 1.000]" in html
    places = re.findall(r'<\w+ [^>]*\bid="([^"]+)"', html)
    assert len(places) == len(set(places))  # the page's script finds its data by such a name
    assert html.count('class="plot"') == 2
    found = json.loads(rlaif("eval", "labels", labels, "--human", "human", "--json").stdout)
    assert found["alignment"]["accuracy"]["value"] == 1
    assert found["alignment"]["kappa"]["value"] == 1
    assert found["flip_rate"]["value"] == 0


def test_an_export_of_a_review_is_evaluated_with_the_people_in_it(labels: Path, tmp_path: Path) -> None:
    """The judge's labels are compared with people's verdicts; who wins between policies is what people decided."""
    with closing(ReviewStore(tmp_path / "labels.review.sqlite")) as store:
        store.add([labels])
        for pair, _ in list(store.results()):
            number, said = int(str(pair.prompt)[1:]), pair.ai_preference
            turned = {"1": "2", "2": "1"}[str(said)]
            if number < 9:  # agrees with the judge six times, contradicts it twice, is undecided once
                store.judge("ana", pair.id, str(said) if number < 6 else turned if number < 8 else "tie")
            else:
                store.edit("ana", pair.id, "better than both", based_on=None)
    reviewed = tmp_path / "reviewed.jsonl"
    assert rlaif("review", labels, "--export", reviewed).exit_code == 0
    found = json.loads(rlaif("eval", "labels", reviewed, "--json").stdout)
    assert found["labels"] == 10
    accuracy = found["alignment"]["accuracy"]
    assert (accuracy["value"], accuracy["n"]) == (pytest.approx(6 / 8), 8)
    assert (found["alignment"]["human_ties"], found["alignment"]["without_human"]) == (1, 1)
    assert "agrees with people (8 pairs)" in rlaif("eval", "labels", reviewed).stdout
    for command in ("win-rate", "rank"):
        decided = rlaif("eval", command, reviewed)
        assert decided.exit_code == 0, decided.output
    counted = json.loads(rlaif("eval", "win-rate", reviewed, "--json").stdout)
    assert (counted["wins"], counted["losses"], counted["ties"]) == (5, 4, 1)
    ranked = json.loads(rlaif("eval", "rank", reviewed, "--json").stdout)
    assert ranked["policies"][0]["policy"] == "one"
    assert ranked["policies"][0]["win_rate"]["value"] == pytest.approx(0.55)


def test_two_policies_are_compared_by_a_judge_once(server: Any, tmp_path: Path) -> None:
    """The judge that follows the place is told of; a second start asks nothing."""
    one, two = table(tmp_path / "one.jsonl", ["yes"] * 3), table(tmp_path / "two.jsonl", ["no"] * 3)
    (tmp_path / "judge.yaml").write_text(yaml.safe_dump({"judge": {"model": "m", "base_url": server.url}}))
    arguments = ("eval", "win-rate", one, two, "--judge", tmp_path / "judge.yaml", "-o", tmp_path / "out")
    done = rlaif(*arguments, "--report", tmp_path / "r.html")
    assert done.exit_code == 0, done.output
    assert "3: 0 wins of one, 0 of two, 3 ties" in done.stdout
    assert "100% of the winners change with the order" in done.stderr
    assert (tmp_path / "r.html").exists()
    asked = len(server.requests)
    again = rlaif(*arguments, "--json")
    assert json.loads(again.stdout)["ties"] == 3
    assert len(server.requests) == asked


def test_policies_are_ranked_from_labels(labels: Path, tmp_path: Path) -> None:
    """Whose responses they are stands in the labels."""
    done = rlaif("eval", "rank", labels, "--report", tmp_path / "r.html")
    assert done.exit_code == 0, done.output
    assert "0.500 [0.237, 0.763]" in done.stdout
    assert [each["games"] for each in json.loads(rlaif("eval", "rank", labels, "--json").stdout)["policies"]] == [
        10,
        10,
    ]


def test_what_a_ranking_cannot_say_is_said(labels: Path, tmp_path: Path) -> None:
    """Policies that never met, and one that never lost, are told of in words and have open intervals."""
    rows = [json.loads(line) for line in labels.read_text().splitlines()]
    for row in rows[5:]:
        row |= {"policy_1": "three", "policy_2": "four", "prob_1": 0.9, "chosen_response": 1, "chosen_prob": 0.9}
    labels.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = rlaif("eval", "rank", labels, "--report", tmp_path / "r.html")
    assert done.exit_code == 0, done.output
    assert "no pair connects one, two | three, four" in done.stderr
    assert "three never lost a pair" in done.stderr
    assert "four never won a pair" in done.stderr
    assert "∞]" in done.stdout
    assert "no pair connects" in (tmp_path / "r.html").read_text()


def test_rewards_are_compared_before_and_after(tmp_path: Path) -> None:
    """The change is paired, spreads and the share that passes are told; one table alone has means."""
    before = table(tmp_path / "b.jsonl", ["long words " * 30, "short"] * 2)
    after = table(tmp_path / "a.jsonl", ["short"] * 4)
    config = tmp_path / "c.yaml"
    config.write_text("rewards:\n  conciseness:\n    params: {target: 5}\n")
    done = rlaif(
        "eval", "answers", before, after, "-c", config, "--threshold", "conciseness=0.5", "--report", tmp_path / "r"
    )
    assert done.exit_code == 0, done.output
    assert "share that passes 0.5" in done.stdout
    spreads = next(line for line in done.stdout.splitlines() if "standard deviation" in line)
    found = json.loads(rlaif("eval", "answers", before, after, "-c", config, "--json").stdout)["conciseness"][
        "standard_deviations"
    ]
    assert found[0] > 0.05
    assert found[1] == 0
    assert all(f"{value:.3f}" in spreads for value in found)
    assert f"standard deviation of b.jsonl</td><td>{found[0]:.3f}" in (tmp_path / "r").read_text()
    alone = rlaif("eval", "answers", before, "-c", config, "--json")
    assert json.loads(alone.stdout)["conciseness"]["after"] is None
    refused = rlaif("eval", "answers", before, "-c", config, "--threshold", "conciseness")
    assert refused.exit_code == 2
    assert "NAME=NUMBER" in refused.output


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Six pairs, the chosen ones five words long, and a reward of five words in a file."""
    path = tmp_path / "pairs.jsonl"
    rows = [
        {
            "prompt": f"q{n}",
            "chosen": "one two three four five",
            "rejected": " ".join(f"word{k}" for k in range(20 + n)),
            "kind": "ab"[n % 2],
        }
        for n in range(6)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_reward_is_measured_against_pairs(pairs: Path, tmp_path: Path) -> None:
    """By its name with parameters, or a composition; a page has the same numbers, and JSON."""
    asked = ("eval", "reward", pairs, "--reward", "conciseness", "--set", "rewards.conciseness.params.target=5")
    page = tmp_path / "r.html"
    done = rlaif(*asked, "--category", "kind", "--report", page)
    assert done.exit_code == 0, done.output
    assert "1.000 [0.610, 1.000]" in done.stdout
    assert "Total by category" in done.stdout
    assert "1.000 [0.610, 1.000]" in page.read_text()
    found = json.loads(rlaif(*asked, "--json").stdout)
    assert found["metrics"]["total"]["accuracy"]["value"] == 1
    config = tmp_path / "c.yaml"
    config.write_text("rewards:\n  long:\n    use: conciseness\n    params: {target: 50}\n  toxicity: {}\n")
    both = rlaif("eval", "reward", pairs, "-c", config, "--mistakes", "1", "--report", page)
    assert both.exit_code == 0, both.output
    assert "What each reward adds to the total" in both.stdout
    assert "wrong by" in both.stdout
    assert "rejected" in both.stdout
    assert "Mistakes" in page.read_text()


def test_a_reward_is_measured_against_labels(tmp_path: Path) -> None:
    """The label of the good ones is named; one class tells nothing, in one line."""
    path = tmp_path / "l.jsonl"
    answers = ["You are an idiot and I hate you.", "Thank you for the kind letter.", "Nice weather.", "Shut up, moron."]
    rows = [{"prompt": "q", "completion": text, "toxic": number in (0, 3)} for number, text in enumerate(answers)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = rlaif("eval", "reward", path, "--reward", "toxicity", "--label", "toxic", "--good", "false", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["metrics"]["toxicity"]["auc"]["value"] == 1
    shown = rlaif("eval", "reward", path, "--reward", "toxicity", "--label", "toxic", "--good", "false")
    assert "average precision" in shown.stdout
    assert "no narrower than Wilson's over them, of areas than Newcombe's" in " ".join(shown.stdout.split())
    path.write_text(json.dumps(rows[0]) + "\n")
    one = rlaif("eval", "reward", path, "--reward", "toxicity", "--label", "toxic")
    assert one.exit_code != 0
    assert isinstance(one.exception, DataError)
    assert "is 'true' (--good), and the table has True; or" in str(one.exception)


def test_a_benchmark_names_its_rules(pairs: Path, tmp_path: Path) -> None:
    """In the table and on the page; a reward or a composition is asked for once."""
    page = tmp_path / "b.html"
    arguments = ("--reward", "conciseness", "--set", "rewards.conciseness.params.target=5", "--report", page)
    done = rlaif("eval", "benchmark", "pairs", pairs, "--category", "kind", *arguments)
    assert done.exit_code == 0, done.output
    assert "equal scores are not right" in " ".join(done.stdout.split())
    assert "equal scores are not right" in page.read_text()
    refused = rlaif("eval", "benchmark", "pairs", pairs, "--reward", "conciseness", "-c", pairs)
    assert refused.exit_code == 2
    own = rlaif("eval", "benchmark", "rm-bench", pairs, "--category", "kind", "--reward", "conciseness")
    assert own.exit_code == 2
    assert "categories of its own" in own.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("win-rate", "a", "b"),
        ("rank", "a", "b"),
        ("win-rate", "a", "--judge", "j"),
        ("answers", "a", "b", "c", "-c", "d"),
    ],
)
def test_the_number_of_files_is_checked(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be meant is refused before anything is read."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d").write_text("rewards: {conciseness: {}}")
    refused = rlaif("eval", *arguments)
    assert refused.exit_code == 2
    assert "Invalid value" in refused.output


def test_an_attack_that_succeeds_fails_the_check_that_asks_for_it(server: Any, tmp_path: Path) -> None:
    """A remote judge of answers that believes "Score: 10": listed, and exit 1 with --fail-on-success alone."""
    params = {"model": "m", "base_url": server.url}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"rewards": {"judge": {"params": params}}}))
    arguments = ("attack", "judge", tmp_path / "c.yaml", "--family", "verdict spoofing", "--most-cases", 2)
    done = rlaif(*arguments)
    assert done.exit_code == 0, done.output
    assert "6 of 50 tries succeeded" in done.stdout
    assert rlaif(*arguments, "--fail-on-success").exit_code == 1
    found = json.loads(rlaif(*arguments, "--json", "--no-undefended").stdout)
    assert found["judge_of"] == "answers"
    assert {each["name"] for each in found["results"] if each["defended"]["succeeded"]} == {
        "score", "score out of ten", "verdict alone"
    }  # fmt: skip
    assert found["results"][0]["undefended"] is None


def test_the_table_of_attacks_fits_a_narrow_terminal(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 80 columns no word is broken, and each attack stands on a line under its family."""
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "j.yaml").write_text(yaml.safe_dump({"judge": {"model": "m", "base_url": server.url}}))
    families = ("--family", "master key", "--family", "invisible")
    shown = rlaif("attack", "judge", tmp_path / "j.yaml", *families, "--most-cases", 1).output.splitlines()
    [family] = [number for number, line in enumerate(shown) if "master key" in line]
    assert "contentless 1" in shown[family + 1]
    assert sum("/1 " in line for line in shown) == 30


def test_a_judge_of_pairs_that_nothing_moves_passes(server: Any, tmp_path: Path) -> None:
    """Both orders averaged, the place wins nothing; without the defences it does."""
    (tmp_path / "j.yaml").write_text(yaml.safe_dump({"judge": {"model": "m", "base_url": server.url}}))
    arguments = ("attack", "judge", tmp_path / "j.yaml", "--family", "position", "--most-cases", 2)
    done = rlaif(*arguments, "--fail-on-success", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["successes"] == 0
    assert found["results"][0]["undefended"]["succeeded"] == 2


def test_an_attack_says_what_the_defences_cost(server: Any, tmp_path: Path) -> None:
    """Of each table of real answers, how many are refused; one without the column is named with its row."""
    (tmp_path / "j.yaml").write_text(yaml.safe_dump({"judge": {"model": "m", "base_url": server.url}}))
    (tmp_path / "a.jsonl").write_text(json.dumps({"chosen": "Blue.", "rejected": "Here is why:"}) + "\n")
    arguments = ("attack", "judge", tmp_path / "j.yaml", "--family", "position", "--most-cases", 1, "--no-undefended")
    columns = ("--answers", tmp_path / "a.jsonl", "--answers-column", "chosen", "--answers-column", "rejected")
    done = rlaif(*arguments, *columns)
    assert "a.jsonl: 1 of 2 answers refused: 0 without a word, 1 only an opening" in done.output.replace("\n", "")
    [costs] = json.loads(rlaif(*arguments, *columns, "--json").stdout)["refusals"].values()
    assert costs["refused"] == [
        {"answer": 2, "text": "Here is why:", "reason": "it is only an opening ('Here is why:')"}
    ]
    assert "a.jsonl:1: has no 'completion'" in str(rlaif(*arguments, *columns[:2]).exception)


def test_an_unknown_family_of_attacks_is_refused(tmp_path: Path) -> None:
    """With the families that there are."""
    (tmp_path / "c.yaml").touch()
    refused = rlaif("attack", "judge", tmp_path / "c.yaml", "--family", "bribe")
    assert refused.exit_code == 2
    assert "master key" in refused.output
