"""The command line, run as a program."""

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet
import pytest

from rlaif_sdk.io.tables import read_rows

REWARDS = """
def brevity(completions, *, limit: int = 3):
    'Short completions score 1.'
    return [min(1.0, limit / max(1, len(c.split()))) for c in completions]

def picky(completions):
    return [None if c == 'skip' else float('nan') if c == 'fail' else 1.0 for c in completions]
"""
CONFIG = """
rewards:
  brevity: {use: "./my_rewards.py:brevity", weight: 2}
  picky: {use: "./my_rewards.py:picky"}
"""
ROWS = [
    {"prompt": "a", "completion": "one two three four", "id": 1},
    {"prompt": "b", "completion": "skip", "id": 2},
    {"prompt": "c", "completion": "fail", "id": 3},
]


def rlaif(*arguments, cwd=None):
    program = Path(sys.executable).with_name("rlaif")
    return subprocess.run(
        [program, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False, env=_environment()
    )


def _environment():
    return {**os.environ, "COLUMNS": "120", "NO_COLOR": "1"}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "my_rewards.py").write_text(REWARDS)
    (tmp_path / "rewards.yaml").write_text(CONFIG)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return tmp_path


def test_allow_changed_says_which_commands_need_resume():
    """Alone it does nothing there."""
    done = rlaif("distill", "--help")
    assert "iterate and distill need --resume too" in " ".join(re.sub(r"[^\w\s,;.'-]", " ", done.stdout).split())


def test_help_lists_the_commands_and_loads_nothing_heavy():
    """`rlaif --help` answers without importing numpy, torch or transformers."""
    code = (
        "import sys; sys.argv = ['rlaif', '--help']\nfrom rlaif_sdk.cli import main\n"
        "try: main()\nexcept SystemExit as stop: assert not stop.code\n"
        "heavy = {'torch', 'numpy', 'transformers', 'onnxruntime', 'aiohttp'} & set(sys.modules)\nassert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(command in done.stdout for command in ("score", "explain", "train", "init", "doctor", "quickstart"))


def test_score_adds_the_reward_to_every_row_and_counts_failures_apart(folder):
    """The output has each input row with its reward; an abstention and a failure are told apart in status."""
    done = rlaif("score", "rows.jsonl", "-c", "rewards.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (folder / "rows.scored.jsonl").read_text().splitlines()]
    assert [{k: row[k] for k in ("prompt", "completion", "id")} for row in rows] == ROWS
    assert [row["reward"]["rewards"]["picky"]["status"] for row in rows] == ["scored", "abstained", "failed"]
    assert rows[0]["reward"]["total"] == pytest.approx(2 * 0.75 + 1)
    assert rows[2]["reward"]["total"] == pytest.approx(3 * 1.0)
    assert re.search(r"picky\s+1\s+1\s", done.stdout)


def test_score_writes_parquet_that_has_the_same_rows(folder):
    """JSONL in, Parquet out: the same numbers, also where whole columns are null in one chunk."""
    rlaif("score", "rows.jsonl", "-c", "rewards.yaml", cwd=folder)
    done = rlaif("score", "rows.jsonl", "-c", "rewards.yaml", "-o", "out.parquet", "--chunk", 1, cwd=folder)
    assert done.returncode == 0, done.stderr
    expected = [json.loads(line) for line in (folder / "rows.scored.jsonl").read_text().splitlines()]
    found = pyarrow.parquet.read_table(folder / "out.parquet").to_pylist()
    assert [row["reward"]["total"] for row in found] == [row["reward"]["total"] for row in expected]
    again = rlaif("score", "out.parquet", "-c", "rewards.yaml", "-o", "b.jsonl", "--reward-column", "again", cwd=folder)
    assert again.returncode == 0, again.stderr


def test_score_refuses_to_overwrite_an_existing_column(folder):
    """A row that has the reward column already is an error that names it, and no output is left."""
    rlaif("score", "rows.jsonl", "-c", "rewards.yaml", cwd=folder)
    done = rlaif("score", "rows.scored.jsonl", "-c", "rewards.yaml", cwd=folder)
    assert done.returncode == 2
    assert "already has a column 'reward'" in done.stderr
    assert not (folder / "rows.scored.scored.jsonl").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "x"', "rows.jsonl:4: no valid JSON"),
        ("[1]", "rows.jsonl:4: a list where a JSON object is wanted"),
        ('{"prompt": "x"}', "rows.jsonl:4: has no column 'completion'"),
    ],
)
def test_score_names_the_row_that_it_refuses(folder, line, message):
    """A bad row is named by file and line, in one line without a traceback, and nothing is written."""
    with (folder / "rows.jsonl").open("a") as file:
        file.write(line + "\n")
    done = rlaif("score", "rows.jsonl", "-c", "rewards.yaml", cwd=folder)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "rows.scored.jsonl").exists()


@pytest.mark.parametrize(
    "completion",
    ["5", "null", '[{"role": "assistant", "content": 42}]', '[{"content": "who says so?"}]', '["text"]'],
)
def test_score_leaves_a_row_that_cannot_be_read_unscored_alone(folder, completion):
    """One such row ended the run, or left every row unscored; the row says what is wrong with it."""
    with (folder / "rows.jsonl").open("a") as file:
        file.write(f'{{"prompt": "x", "completion": {completion}}}\n')
    done = rlaif("score", "rows.jsonl", "-c", "rewards.yaml", cwd=folder)
    assert "1 of 4 rows are unscored" in done.stderr
    *scored, broken = map(json.loads, (folder / "rows.scored.jsonl").read_text().splitlines())
    assert all(row["reward"]["total"] is not None for row in scored)
    assert broken["reward"]["total"] is None
    assert "cannot be read" in json.dumps(broken)


def test_a_bad_config_is_refused_with_file_and_line(folder):
    """A misspelt key is named with its line and the key that was meant."""
    (folder / "rewards.yaml").write_text(CONFIG.replace("weight: 2", "wieght: 2"))
    done = rlaif("score", "rows.jsonl", "-c", "rewards.yaml", cwd=folder)
    assert done.returncode == 2
    assert "rewards.yaml:3: rewards.brevity.wieght: unknown key (did you mean 'weight'?)" in done.stderr


def test_explain_shows_the_waterfall_of_one_row(folder):
    """The row of a file, and texts on the command line, are laid out with every reward and the total."""
    done = rlaif("explain", "rows.jsonl", "-c", "rewards.yaml", "--row", 2, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "row 2" in done.stdout
    assert "abstained" in done.stdout
    texts = rlaif("explain", "-c", "rewards.yaml", "--prompt", "p", "--completion", "one two", cwd=folder)
    assert "3.0000" in texts.stdout


def test_explain_of_a_row_that_is_not_there_says_how_many_there_are(folder):
    """Row 9 of three rows is refused."""
    done = rlaif("explain", "rows.jsonl", "-c", "rewards.yaml", "--row", 9, cwd=folder)
    assert done.returncode == 2
    assert "has 3 rows" in done.stderr


def test_rewards_list_and_show_describe_an_installed_plugin():
    """The conciseness plugin is listed with its distribution, and shown with its parameters and an example."""
    listed = json.loads(rlaif("rewards", "list", "--json").stdout)
    (entry,) = [entry for entry in listed["rewards"] if entry["name"] == "conciseness"]
    assert entry["plugin"].startswith("rlaif-conciseness ")
    shown = rlaif("rewards", "show", "conciseness").stdout
    assert "target" in shown
    assert "rewards:" in shown


def test_a_reward_s_columns_are_the_same_wherever_they_are_told(tmp_path):
    """Those that a table must have by the default parameters."""
    listed = json.loads(rlaif("rewards", "list", "--json").stdout)
    (entry,) = [entry for entry in listed["rewards"] if entry["name"] == "execution"]
    assert entry["columns"] == ["tests"]
    assert "columns  tests\n" in rlaif("rewards", "show", "execution").stdout
    rlaif("init", "config", "execution", "-o", tmp_path / "c.yaml")
    assert "Reads the table's tests." in (tmp_path / "c.yaml").read_text()


def test_rewards_that_compare_the_completions_to_a_prompt_say_so():
    """In the list, and where one is shown."""
    listed = json.loads(rlaif("rewards", "list", "--json").stdout)
    scopes = {reward["name"]: reward["scope"] for reward in listed["rewards"]}
    assert (scopes["tournament"], scopes["judge"]) == ("group", "row")
    assert "scope    the completions to one prompt together\n" in rlaif("rewards", "show", "tournament").stdout


def test_rewards_list_has_a_line_a_reward():
    """Whole where it is piped; a terminal gets what it has room for."""
    piped = rlaif("rewards", "list").stdout.splitlines()
    assert piped[0].split() == ["reward", "columns", "what", "its", "scores", "say"]
    names = [line.split()[0] for line in piped[1:]]
    packages = {
        reward["name"]: reward["plugin"] for reward in json.loads(rlaif("rewards", "list", "--json").stdout)["rewards"]
    }
    assert [*map(packages.get, names)] == sorted(packages.values())
    (execution,) = (line for line in piped if line.startswith("execution "))
    assert " ".join(execution.split()).startswith("execution tests 0 tests fail … 1 tests pass: Share of")
    (toxicity,) = (line for line in piped if line.startswith("toxicity "))
    assert "toxic … harmless" in toxicity[:80]
    assert execution.endswith("run in a sandbox.")
    ours, theirs = os.openpty()
    program = Path(sys.executable).with_name("rlaif")
    with subprocess.Popen([program, "rewards", "list"], stdout=theirs, env={**os.environ, "COLUMNS": "80"}) as running:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # Linux says that the other end is closed
            while block := os.read(ours, 4096):
                shown += block
    os.close(ours)
    assert running.returncode == 0
    lines = shown.decode().splitlines()
    assert len(lines) == len(piped)
    assert max(map(len, lines)) == 80
    assert lines[1].endswith("…")


def test_rewards_show_of_an_unknown_name_suggests_the_near_one():
    """A misspelt name is an error with the name that was meant."""
    done = rlaif("rewards", "show", "concisenes")
    assert done.returncode == 2
    assert "did you mean 'conciseness'?" in done.stderr


def test_init_plugin_never_overwrites(folder):
    """A second `init plugin` of one name is refused and changes no file."""
    assert rlaif("init", "plugin", "short-words", cwd=folder).returncode == 0
    module = folder / "rlaif-short-words" / "rlaif_short_words" / "__init__.py"
    module.write_text("mine = True\n")
    done = rlaif("init", "plugin", "short-words", cwd=folder)
    assert done.returncode == 2
    assert "exists and is left as it is" in done.stderr
    assert module.read_text() == "mine = True\n"


@pytest.mark.parametrize("name", ["Short", "1st", "a b", "../up", "class", "-x-"])
def test_init_plugin_refuses_names_that_are_no_package(folder, name):
    """A name that makes no Python package is refused, and nothing is written."""
    done = rlaif("init", "plugin", "--", name, cwd=folder)
    assert done.returncode == 2
    assert not [path for path in folder.iterdir() if path.is_dir()]


def test_doctor_reports_versions_and_plugins():
    """Every line of a sound installation is ok or absent, and the exit status is 0."""
    done = rlaif("doctor")
    assert done.returncode == 0, done.stdout
    assert "plugin conciseness" in done.stdout


def test_schema_describes_the_parameters_of_installed_rewards():
    """An editor that follows the schema accepts a good entry and refuses an unknown parameter of a known reward."""
    import jsonschema

    schema = json.loads(rlaif("schema").stdout)
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid({"rewards": {"conciseness": {"params": {"target": 40}, "normalize": "zscore"}}})
    assert not validator.is_valid({"rewards": {"conciseness": {"params": {"tarjet": 40}}}})
    assert not validator.is_valid({"rewards": {"short": {"use": "conciseness", "params": {"tarjet": 40}}}})
    assert not validator.is_valid({"rewards": {"conciseness": {"wieght": 1}}})


def test_a_column_that_only_some_rows_have_is_none_in_the_rest(folder):
    """A chunk, or an explained row, without a column that the table has elsewhere is scored as if it held null."""
    (folder / "rewards.yaml").write_text(
        CONFIG.replace('brevity: {use: "./my_rewards.py:brevity", weight: 2}', 'known: {use: "./my_rewards.py:known"}')
    )
    with (folder / "my_rewards.py").open("a") as file:
        file.write("\ndef known(completions, reference):\n    return [None if r is None else 1.0 for r in reference]\n")
    rows = [{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": "c", "reference": "c"}]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = rlaif("score", "rows.jsonl", "-c", "rewards.yaml", "--chunk", 1, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "abstained" in rlaif("explain", "rows.jsonl", "-c", "rewards.yaml", "--row", 1, cwd=folder).stdout


def test_prompts_of_several_kinds_are_scored_in_parquet_too(folder):
    """Text in one row and messages in another: the column is JSON text, which is opened again on reading."""
    prompt = [{"role": "user", "content": "x"}]
    with (folder / "rows.jsonl").open("a") as file:
        file.write(json.dumps({"prompt": prompt, "completion": "y"}) + "\n")
    done = rlaif("score", "rows.jsonl", "-c", "rewards.yaml", "-o", "out.parquet", cwd=folder)
    assert done.returncode == 0, done.stderr
    rows = list(read_rows(folder / "out.parquet"))
    assert rows[-1]["prompt"] == prompt
    assert isinstance(rows[0]["prompt"], str)


@pytest.mark.parametrize(("name", "content"), [("empty.jsonl", b""), ("torn.parquet", b"PAR1 torn")])
def test_a_table_without_rows_or_sense_is_refused(folder, name, content):
    """An empty file and a torn Parquet file end with one line that names them."""
    (folder / name).write_bytes(content)
    done = rlaif("score", name, "-c", "rewards.yaml", cwd=folder)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {name}: ")
    assert "Traceback" not in done.stderr
