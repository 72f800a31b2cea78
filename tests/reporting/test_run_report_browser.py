"""The report in a real browser, without a network: its plots are drawn, its console is silent, nothing in it is run."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("plotly", reason="the report needs plotly")

from rlaif_sdk.reporting.run_report import write_report
from tests.reporting.recorded_runs import HOSTILE, Stated, compose, hacked_run

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium is installed")

OFFLINE = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)


def load(file: Path, profile: Path) -> tuple[str, list[str]]:
    """The page's DOM after its scripts have run, and what they wrote to the console."""
    done = subprocess.run(
        [
            str(BROWSER),
            *OFFLINE,
            f"--user-data-dir={profile}",
            "--enable-logging=stderr",
            "--virtual-time-budget=30000",
            "--window-size=1200,2000",
            "--dump-dom",
            file.as_uri(),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_a_full_report_is_drawn_without_an_error_and_runs_nothing_of_the_run(tmp_path):
    """Every plot has marks in it, the console is empty, and no text of the run was executed or loaded."""
    file = tmp_path / "report.html"
    write_report(hacked_run(), file, title="run", history=[{"step": 0, HOSTILE: 1.0}, {"step": 1, HOSTILE: 2.0}])
    plots = len(re.findall('class="plot"', file.read_text(encoding="utf-8")))
    dom, console = load(file, tmp_path / "profile")
    assert console == []
    assert f'data-drawn="{plots}"' in dom
    assert dom.count('class="main-svg"') >= plots
    assert re.search(r'<path class="js-line"[^>]* d="M', dom)
    assert re.search(r'<g class="point"><path d="M', dom)
    assert "<title>run</title>" in dom
    assert not re.search(r"<img\b", re.sub(r'<script.*?</script>|="[^"]*"', "", dom, flags=re.DOTALL))


def test_the_smallest_report_is_drawn(tmp_path):
    """One row of one reward, without groups, failures, history or anything held out."""
    write_report(compose({"a": Stated("a")}, [{"a": [1.0]}]), tmp_path / "report.html", title="run")
    dom, console = load(tmp_path / "report.html", tmp_path / "profile")
    assert console == []
    assert 'data-drawn="3"' in dom


def test_a_script_that_is_not_the_report_s_own_is_refused(tmp_path):
    """If a text did get through as markup, the page's policy would still keep the browser from running it."""
    file = tmp_path / "report.html"
    write_report(compose({"a": Stated("a")}, [{"a": [1.0]}]), file, title="run")
    page = file.read_text(encoding="utf-8").replace("</body>", f"{HOSTILE}</body>")
    file.write_text(page, encoding="utf-8")
    dom, console = load(file, tmp_path / "profile")
    assert "<title>run</title>" in dom
    assert any("Content Security Policy" in line for line in console)
