"""The report as a file: what it says, and what it never lets through."""

from __future__ import annotations

import json
import math
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

pytest.importorskip("plotly", reason="the report needs plotly")

from rlaif_sdk import Score, SubScore
from rlaif_sdk.composer import Component, FailurePolicy, Gate
from rlaif_sdk.composer.weights import Linear, Schedule
from rlaif_sdk.exceptions import DataError, MissingExtraError
from rlaif_sdk.reporting import page as reporting_page
from rlaif_sdk.reporting.page import Section, page, part
from rlaif_sdk.reporting.run_report import write_report
from rlaif_sdk.reporting.run_report.observations import BATCHES, observe
from tests.reporting.recorded_runs import HOSTILE, Stated, compose, hacked_run

NAN = math.nan
LASTING = FailurePolicy(fail_fast=False)
"""Of a reward that fails from the first batch on."""


class Page(HTMLParser):
    """The elements of a page, and its text outside of scripts."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts.append(data)
        elif self._inside != "style":
            self.words += data

    @property
    def figures(self) -> dict[str, dict]:
        return json.loads(self.scripts[0])


@pytest.fixture(scope="module")
def hacked(tmp_path_factory):
    file = tmp_path_factory.mktemp("report") / "new" / "report.html"
    history = [{"step": step, "reward": 0.1 * step, "kl": NAN if step else 0.5, "note <b>": 1.0} for step in range(5)]
    answers = [
        {
            "prompt": HOSTILE,
            "before": {"completion": HOSTILE, "total": 0.25},
            "after": {"completion": [{"role": "assistant", "content": HOSTILE}], "total": None},
        }
    ]
    warnings = write_report(hacked_run(), file, title=f"run {HOSTILE}", history=history, answers=answers)
    return warnings, Page(file.read_text(encoding="utf-8"))


def test_no_text_of_the_run_becomes_markup(hacked):
    """Prompts, completions, reasons, failures, names and the title are shown as they are, and nothing of them runs."""
    _, page = hacked
    tags = [tag for tag, _ in page.tags]
    assert tags.count("script") == 3
    assert "img" not in tags
    assert "b" not in tags
    assert page.words.count(HOSTILE) > 10
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


def test_only_the_report_s_own_scripts_may_run(hacked):
    """The policy names them by digest, and allows neither a connection nor anything else from outside."""
    _, page = hacked
    policy = next(
        attrs["content"] for tag, attrs in page.tags if tag == "meta" and "content" in attrs and "http-equiv" in attrs
    )
    assert policy.startswith("default-src 'none'")
    assert len(re.findall("'sha256-", policy)) == 2
    assert "unsafe-eval" not in policy
    assert not re.search(r"script-src[^;]*unsafe", policy)
    linked = [value for _, attributes in page.tags for name, value in attributes.items() if name in {"src", "href"}]
    assert all(value.startswith("#") for value in linked)


def test_alarms_are_shown_with_their_evidence_and_what_they_did(tmp_path):
    """The e-value of each watch and its threshold over the steps, a mark where an alarm rang, and a row that says why."""
    history = [
        {"step": step, "alarm/rise_length/e_value": 2.0**step, "alarm/rise_length/threshold": 40.0}
        for step in range(1, 6)
    ]
    alarm = {
        "watch": "rise_length",
        "step": 6,
        "good": 2,
        "log_e": 4.1,
        "found": f"length rose from 5 to 9 {HOSTILE}",
        "reward": "judge",
        "action": "lower_weight",
        "done": "the weight of 'judge' is lowered to 0.5 of what is configured",
    }
    file = tmp_path / "report.html"
    write_report(hacked_run(), file, history=history, alarms=[alarm])
    page = Page(file.read_text(encoding="utf-8"))
    (figure,) = (figure for place, figure in page.figures.items() if place.startswith("plot-alarms"))
    evidence, threshold, rung = figure["data"]
    assert evidence["y"] == [2.0, 4.0, 8.0, 16.0, 32.0]
    assert set(threshold["y"]) == {40.0}
    assert (rung["x"], rung["y"]) == ([6], [pytest.approx(math.exp(4.1))])
    assert alarm["found"] in page.words
    assert alarm["done"] in page.words


def test_a_run_that_was_watched_without_an_alarm_says_so(tmp_path):
    """Its evidence is shown, and a run that nothing watched has no such section."""
    file = tmp_path / "report.html"
    write_report(hacked_run(), file, history=[{"step": 1, "alarm/rise_length/e_value": 1.0}])
    assert "No alarm rang." in Page(file.read_text(encoding="utf-8")).words
    write_report(hacked_run(), file)
    assert "No alarm rang." not in Page(file.read_text(encoding="utf-8")).words


def test_the_warnings_stand_at_the_top_with_their_figures(hacked):
    """Reward hacking is said in words, naming windows, changes, errors and the statistic."""
    warnings, page = hacked
    assert re.match(
        r"Reward hacking: between steps 0–5 and 18–23 the total changed by \+0\.\d+ ± 0\.\d+ and 'judge'", warnings[0]
    )
    assert "'helpful' failed on 6.2% of the rows." in warnings
    assert all(warning in page.words for warning in warnings)


def test_every_section_is_there_and_every_plot_has_its_place(hacked):
    """One section a diagnostic; each plot's data has an element that it is drawn in."""
    _, page = hacked
    sections = [attrs["id"] for tag, attrs in page.tags if tag == "section"]
    assert sections == [
        "rewards", "variance", "correlation", "length", "saturation", "groups", "drift", "failures", "samples", "answers", "log",
    ]  # fmt: skip
    places = {attrs["id"] for tag, attrs in page.tags if attrs.get("class") == "plot"}
    assert places == page.figures.keys()
    assert all(figure["data"] for figure in page.figures.values())


def test_the_plots_show_the_numbers_of_the_run(hacked):
    """Means of the steps, correlations, failures and the log, as they were."""
    _, page = hacked
    seen = observe(hacked_run())
    lines = {trace["name"]: trace["y"] for trace in page.figures["plot-rewards-1"]["data"] if "name" in trace}
    assert list(lines) == ["total", "helpful", "&lt;b&gt;", "judge (weight 0)"]
    expected = [np.mean(seen.totals_N[seen.step_N == step]) for step in range(24)]
    assert lines["total"] == pytest.approx(expected)
    band = page.figures["plot-rewards-1"]["data"][0]["y"]
    errors = [np.std(seen.totals_N[seen.step_N == step], ddof=1) / 4 for step in range(24)]
    assert band == pytest.approx([*np.add(expected, errors), *np.subtract(expected, errors)[::-1]])
    heat = page.figures["plot-correlation-1"]["data"][0]
    both = np.corrcoef(seen.totals_N, seen.length_N)[0, 1]
    assert heat["z"][3][4] == pytest.approx(both)
    assert sum(page.figures["plot-failures-1"]["data"][0]["y"]) == 24
    bars = page.figures["plot-variance-1"]["data"]
    assert [bar["name"] for bar in bars] == ["whole run", "first quarter", "last quarter"]
    assert all(sum(bar["y"]) == pytest.approx(1.0) for bar in bars)
    choices = [button["label"] for button in page.figures["plot-log-1"]["layout"]["updatemenus"][0]["buttons"]]
    assert choices == ["reward", "kl", "note &lt;b&gt;"]


def test_a_sample_shows_its_waterfall(tmp_path):
    """Raw, normalised, weight, what it adds, the reason, the gate and the total stand in the row's table."""
    run = compose(
        {"a": Component(Stated("a"), weight=2.0), "b": Component(Stated("b"), weight=0.5, failure=LASTING)},
        [{"a": [Score(0.125, reason="it is short")], "b": [Score.failed("timed out")]}],
        gates=[Gate("a", min=0.5, floor=-3.0)],
        texts=["the only one"],
    )
    write_report(run, tmp_path / "r.html")
    page = Page((tmp_path / "r.html").read_text(encoding="utf-8"))
    words = page.words
    assert "step 0 · highest of its batch · -3" in words
    assert "a0.12500.125022.5+0.31250.3125it is short" in words
    assert "b0.5failed; timed out" in words
    assert "gate a >= 0.5-3.3125-3.00000.125 does not pass: at most -3" in words


def test_what_a_score_is_made_of_is_shown_over_the_run_and_in_each_sample(tmp_path):
    """A criterion has its mean over the rows, at the first and at the last step; one that means something else elsewhere none."""
    parts = [
        [
            Score(
                value,
                subscores={"cites": SubScore(value, 2.0, "said so", ("p. 4",)), "#1": SubScore(1.0, per_row=True)},
            )
        ]
        for value in (0.0, 0.25)
    ]
    write_report(compose({"a": Component(Stated("a"))}, [{"a": part} for part in parts]), tmp_path / "r.html")
    words = Page((tmp_path / "r.html").read_text(encoding="utf-8")).words
    assert re.search(r"acites2[^a]*00.25", words)
    assert "a/cites0.25002said so: \u201cp. 4\u201d" in words
    assert "a#1" not in words


def test_a_single_step_shows_how_the_scores_are_spread(tmp_path):
    """Three means would be three lone points; the ends of a scale are said where it is read."""
    scores = {"a": [0.0, 0.0, 1.0, NAN], "b": [3.0, 5.0, 4.0, 4.0]}
    harmless = Stated("a", (0.0, 1.0))
    harmless.ends = ("toxic <b>", "harmless")
    write_report(compose({"a": harmless, "b": Stated("b")}, [scores]), tmp_path / "r.html")
    page = Page((tmp_path / "r.html").read_text(encoding="utf-8"))
    panels = page.figures["plot-rewards-1"]["data"]
    assert [(panel["type"], panel["name"], sum(panel["y"])) for panel in panels] == [
        ("bar", "total", 4), ("bar", "a", 3), ("bar", "b", 4),
    ]  # fmt: skip
    assert panels[1]["y"][0] == 2
    assert panels[1]["y"][-1] == 1
    assert len({panel["xaxis"] for panel in panels}) == 3
    assert "low is toxic <b>, high is harmless" in page.words
    histogram = page.figures["plot-saturation-1"]["layout"]["xaxis"]["title"]["text"]
    assert histogram == "a, declared range, low is toxic &lt;b&gt;, high is harmless"


@pytest.mark.parametrize(
    ("columns", "options"),
    [
        ({"a": [1.0]}, {}),
        ({"a": [1.0, 1.0, 1.0]}, {"group": 3}),
        ({"a": [None, None]}, {}),
        ({"a": [NAN, NAN]}, {"group": 2}),
        ({"a": [1e150, -1e150, 0.0]}, {}),
        ({"a": [1.0, 2.0]}, {"training": False}),
    ],
    ids=["one row", "constant", "abstained", "failed", "huge", "only evaluation"],
)
def test_a_run_with_little_in_it_is_reported_too(tmp_path, columns, options):
    """One row, no variation, nothing scored: a page comes out, its data is JSON, and no warning is given."""
    reward = Component(Stated("a"), failure=LASTING)
    write_report(compose({"a": reward}, [columns], **options), tmp_path / "r.html")
    page = Page((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert page.figures
    assert "1 rewards: a." in page.words


def test_a_run_without_rows_is_refused(tmp_path):
    """There is nothing to report, and no file is left."""
    with pytest.raises(DataError, match="no composed rows"):
        write_report([], tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_an_unknown_held_out_reward_is_refused_with_those_that_there_are(tmp_path):
    """A misspelt name is no silent absence of drift."""
    with pytest.raises(DataError, match=r"no reward is named 'judgee' \(the run has helpful, <b>, judge\)"):
        write_report(hacked_run(2), tmp_path / "r.html", held_out=["judgee"])


def test_training_rows_are_preferred_to_those_of_evaluation():
    """Evaluation rows among the training do not enter the curves."""
    training = compose({"a": Stated("a")}, [{"a": [1.0, 2.0]}])
    evaluation = compose({"a": Stated("a")}, [{"a": [9.0]}], training=False)
    seen = observe([*training, *evaluation])
    assert seen.training
    assert seen.totals_N.tolist() == [1.0, 2.0]


def test_a_reward_that_comes_later_is_missing_before():
    """A run that was resumed with another reward has NaN where there was none."""
    seen = observe([*compose({"a": Stated("a")}, [{"a": [1.0]}]), *compose({"b": Stated("b")}, [{"b": [2.0]}])])
    np.testing.assert_array_equal(seen.raw_RN, [[1.0, NAN], [NAN, 2.0]])
    assert not seen.failed_RN.any()


def test_groups_of_different_batches_are_different_groups():
    """RewardGroup labels begin anew in every batch."""
    seen = observe(compose({"a": Stated("a")}, [{"a": [1.0, 2.0, 3.0, 4.0]}] * 2, group=2))
    assert seen.group_N.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_the_texts_of_a_long_run_are_kept_of_few_rows():
    """However many batches there are, those shown are few and spread over the whole run."""
    seen = observe(compose({"a": Stated("a")}, [{"a": [1.0, 2.0, 3.0, 4.0]}] * 100))
    steps = sorted({row.step for row in seen.samples})
    assert BATCHES / 2 <= len(steps) <= BATCHES
    assert steps[0] == 0
    assert steps[-1] >= 80


def test_by_step_gives_mean_and_standard_error():
    """The error is the sample deviation over the root of n; NaN for a single value, which has none."""
    seen = observe(compose({"a": Stated("a")}, [{"a": [1.0, 3.0, None]}, {"a": [5.0, None, None]}]))
    mean_T, error_T = seen.by_step(seen.raw_RN[0])
    np.testing.assert_allclose(mean_T, [2.0, 5.0])
    np.testing.assert_allclose(error_T, [1.0, NAN])


def test_a_changing_weight_is_plotted_and_noted(tmp_path):
    """A change of the reward is not taken for learning."""
    run = compose(
        {"a": Component(Stated("a"), weight=Schedule(Linear(0.0, 1.0, end=2)))} | {"b": Stated("b")},
        [{"a": [1.0, 2.0], "b": [2.0, 3.0]}] * 3,
    )
    write_report(run, tmp_path / "r.html")
    page = Page((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "The weight of 'a' changed from 0 to 1" in page.words
    assert page.figures["plot-rewards-2"]["data"][0]["y"] == [0.0, 0.5, 1.0]


def test_markup_escapes_whatever_is_not_markup():
    """Children, cells and attribute values; JSON in a script cannot end it."""
    assert part("paragraph", "<b>&", '"x"') == '<p class="&#34;x&#34;">&lt;b&gt;&amp;</p>'
    assert "<td>&lt;i&gt;</td>" in part("table", ["h"], [["<i>"]])
    data = {"data": [{"a": "</script><!-- &\u2028"}], "layout": {}}
    section = Section("one", "One")
    section.plot(data)
    source = page("Title", [section])
    assert "</script><!--" not in source
    assert Page(source).figures == {"plot-one-1": data}


def test_a_number_that_json_lacks_is_refused():
    """A script would read it as an error, and draw nothing."""
    section = Section("one", "One")
    section.plot({"data": [{"y": [NAN]}], "layout": {}})
    with pytest.raises(ValueError, match="not JSON compliant"):
        page("Title", [section])


@pytest.mark.parametrize("module", ["plotly.offline", "jinja2"])
def test_without_its_libraries_the_extra_to_install_is_named(module, tmp_path, monkeypatch):
    """The error carries the pip command, and no half of a report is left."""
    monkeypatch.setitem(sys.modules, module, None)
    for cached in (reporting_page._environment, reporting_page._parts):
        cached.cache_clear()
    with pytest.raises(MissingExtraError, match=r'pip install "rlaif-sdk\[report\]"'):
        write_report(hacked_run(2), tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_the_bars_of_a_waterfall_begin_where_the_one_above_ends(tmp_path):
    """From 0 up to 3, from there down to 1, and the total from 0 to 1; one of weight 0 moves nothing."""
    rewards = {"up": Stated("up"), "down": Stated("down"), "idle": Component(Stated("idle"), weight=0.0)}
    write_report(compose(rewards, [{"up": [3.0], "down": [-2.0], "idle": [5.0]}]), tmp_path / "r.html")
    page = Page((tmp_path / "r.html").read_text(encoding="utf-8"))
    bars = [(attrs["class"], attrs["style"]) for tag, attrs in page.tags if tag == "i"]
    assert bars == [
        ("up", "left: 0.00%; width: 100.00%"),
        ("down", "left: 33.33%; width: 66.67%"),
        ("sum", "left: 0.00%; width: 33.33%"),
    ]
