"""What the tables print."""

from __future__ import annotations

import io
import math
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from rlaif_sdk import Composer, RewardBatch, Score
from rlaif_sdk.reporting.live_view import reporter
from rlaif_sdk.reporting.preflight_report import report_check
from rlaif_sdk.reporting.tables import answers_table, comparison_table, format_estimate, samples_table, text_table
from rlaif_sdk.statistics.estimates import SampleMean
from rlaif_sdk.training.preflight.model_files import LoadedModel, ModelFiles


def printed(renderable: object, width: int = 120) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(renderable)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (SampleMean(0.51234, 0.0312, 64), "0.512 ± 0.031"),
        (SampleMean(46.62, 1.27, 64), "46.6 ± 1.3"),
        (SampleMean(0.5, math.nan, 1), "0.500"),
        (SampleMean(math.nan, math.nan, 0), "–"),
    ],
)
def test_an_estimate_reads_as_mean_and_error(value: SampleMean, text: str):
    """Three decimals, one for large numbers; no error where there is none, a dash where nothing was measured."""
    assert format_estimate(value) == text


def test_the_comparison_has_every_measure_with_its_change_and_rows():
    """Each line: mean before, mean after, paired change with sign, and how many rows it is of."""
    before = {"toxicity": np.array([0.5, 0.5, np.nan]), "total": np.array([1.0, 2.0, 3.0])}
    after = {"toxicity": np.array([0.25, 0.25, 0.1]), "total": np.array([2.0, 3.0, 4.0])}
    notes = ["toxicity: low is toxic, high is [bold]harmless"]
    lines = printed(comparison_table(before, after, title="Rewards", total="total", notes=notes)).splitlines()
    assert notes[0] in lines[-1]
    (toxicity,) = [line for line in lines if "toxicity " in line]
    assert "0.500 ± 0.000" in toxicity
    assert "0.200 ± 0.050" in toxicity
    assert "-0.250 ± 0.000" in toxicity
    assert toxicity.split()[-2] == "2"
    assert any("total" in line and "+1.000" in line for line in lines)


def test_answers_stand_side_by_side_whatever_is_in_them():
    """Text of the model is never read as markup, an empty answer is visible, an unscored one says so."""
    samples = [
        {
            "prompt": [{"role": "user", "content": "why [bold]?"}],
            "before": {"completion": "[red]x[/red] [/nothing]", "total": None},
            "after": {"completion": " ", "total": 0.25},
        }
    ]
    text = printed(samples_table(samples))
    assert "why [bold]?" in text
    assert "[red]x[/red] [/nothing]" in text
    assert "[unscored]" in text
    assert "(empty)" in text
    assert "[0.250]" in text


def test_samples_are_spread_over_all_rows():
    """The first few rows alone may be of one kind."""
    samples = [
        {"prompt": f"p{row}", "before": {"completion": "a", "total": 0.0}, "after": {"completion": "b", "total": 0.0}}
        for row in range(10)
    ]
    text = printed(samples_table(samples, count=2))
    assert "p0" in text
    assert "p5" in text
    assert text.count("p") == printed(samples_table(samples[:2])).count("p")


def test_names_in_a_table_are_what_the_data_says():
    """A column, a category or a policy may be called anything: ``[/b]`` closes nothing, and no escape acts."""
    text = printed(text_table(("", "[/b] \x1b[2J"), [("[red]", "[/]")], title="of [/x]", caption="[dim]\x9bm"))
    for shown in ("[/b] \\x1b[2J", "[red]", "[/]", "of [/x]", "[dim]\\u009bm"):
        assert shown in text


HOSTILE = "\x1b]8;;http://a\x07[red]x\x9b2J\u202e"


def quoting(completion_texts):
    return [Score(1.0, reason=text) for text in completion_texts]


@pytest.mark.parametrize("where", ["samples", "answers", "check", "line"])
def test_no_control_character_of_other_peoples_text_acts_on_the_terminal(where: str):
    """Prompts, answers, reasons and names of files are told with their control characters escaped, and no markup."""
    with Composer({"quoting": quoting}) as composer:
        composition = composer.compose(RewardBatch([HOSTILE], [HOSTILE]))
    console = Console(width=200, file=io.StringIO())
    if where == "samples":
        answer = {"completion": HOSTILE, "total": 0.5}
        console.print(samples_table([{"prompt": HOSTILE, "before": answer, "after": answer}]))
    elif where == "answers":
        console.print(answers_table([HOSTILE], [HOSTILE], composition))
    elif where == "check":
        pytest.importorskip("trl")
        report_check(
            SimpleNamespace(
                data={},
                models=[LoadedModel("policy", ModelFiles(HOSTILE, None, {}, 0, None, None, ""))],
                model_calls={},
                memory={},
                scored={"composition": composition},
                judged={},
                warnings=[HOSTILE],
                problems=[HOSTILE],
            ),
            console,
        )
    else:
        reporter(console)(HOSTILE)
    text = console.file.getvalue()
    assert "[red]x" in text
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(text)
