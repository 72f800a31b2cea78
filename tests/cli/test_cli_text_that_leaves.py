"""Text that leaves the process: one hostile row and one hostile server go through the commands, and nothing acts or tells.

Whatever a command prints is searched for characters that act on a terminal, and whatever it writes for bytes that are no
UTF-8. The server knows the key and puts it, in every spelling, wherever an answer has room; no file and no stream has it.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from tests.judges.conftest import JudgeServer, letters

KEY = "sk-Hostile/0123456789+key"
SPELLINGS = [
    KEY,
    quote(KEY, safe=""),
    quote(quote(KEY, safe=""), safe=""),
    "".join(f"%{ord(sign):02x}" for sign in KEY),
    "".join(f"\\u{ord(sign):04x}" for sign in KEY),
    json.dumps(KEY).replace("/", "\\/"),
    KEY.encode().hex(),
    "".join(f"&#{ord(sign)};" for sign in KEY),
    base64.b64encode(f"Bearer {KEY}".encode()).decode(),
    base64.b64encode(f"x:{KEY}\n".encode()).decode(),
    KEY.encode("utf-16-le").decode(),
]
ACTING = "\x1b]0;title\x07 \x1b[2J \x9b31m \u202egnp \u2028 \x00 \r over"
HOSTILE = f"{ACTING} \ud83d [red]<script>alert(1)</script>"
ACTS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")

REWARDS = """
def words(completions):
    return [float(len(text.split())) for text in completions]

def telling(completions, prompts):
    from rlaif_sdk import Score
    if any("\\x1b" in text for text in completions):
        return [Score(1.0, reason=text) if row % 2 else Score.failed(text) for row, text in enumerate(completions)]
    return [Score(0.5, reason=text) for text in completions]

def shouting(completions):
    raise ValueError(completions[0])
"""
PROGRAM = """
import contextlib, io, json, os, sys, traceback, warnings
warnings.simplefilter("default")
from rlaif_sdk.cli.main import main

for arguments in json.loads(sys.argv[1]):
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2)]
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = streams
    sys.argv = ["rlaif", *arguments]
    try:
        main()
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    except Exception:
        traceback.print_exc()
        code = 1
    sys.stdout, sys.stderr = before
    print(json.dumps([arguments, code, *(stream.buffer.getvalue().decode("latin-1") for stream in streams)]), flush=True)
"""
COMMANDS = """
score rows.jsonl -c c.yaml --group-column problem -o scored.jsonl
score rows.jsonl -c c.yaml --group-column problem -o -
score rows.jsonl -c c.yaml --group-column problem -o scored.csv
score rows.jsonl -c c.yaml --group-column problem -o scored.parquet
score rows.jsonl -c shouting.yaml -o never.jsonl
explain rows.jsonl -c c.yaml --row 2
explain ledger.sqlite --row 2
explain ledger.sqlite --row 2 --json
what-if ledger.sqlite -c other.yaml --top 3
report ledger.sqlite -o report.html
cache list ledger.sqlite
cache export ledger.sqlite exported.jsonl
eval reward preferences.jsonl -c c.yaml --mistakes 3 --report reward.html
eval answers rows.jsonl answers.jsonl -c c.yaml
judge probe label.yaml
label label.yaml --set output=verdicts --set mode=verdict
label label.yaml --set output=labels
label failing.yaml
eval labels labels/labels.jsonl --human human --report labels.html
review labels/labels.jsonl --export reviewed.jsonl --agreement
make candidates make.yaml
make merge merge.yaml
attack judge label.yaml --most-cases 1
attack rewards rows.jsonl c.yaml --only padding --report attack.html
rewards list
runs list .
""".strip().splitlines()


def answer(number: int, sent: dict[str, Any]) -> Any:
    """Every third time a hostile error, else a verdict with the key and the characters in every field."""
    told = " ".join([HOSTILE, SPELLINGS[number % len(SPELLINGS)], SPELLINGS[(number + 5) % len(SPELLINGS)]])
    if "refused" in str(sent["model"]):
        return 400, {"x-request-id": quote(KEY)}, {"error": {"message": told, "code": 400}}
    said = letters({"1": -0.2, "2": -2.0}, f"{told}\nPreferred: {1 + number % 2}")
    said["id"] = said["model"] = said["choices"][0]["message"]["reasoning_content"] = told
    return 200, {"x-echo": quote(KEY)}, said


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """The folder after all commands, and of each its exit code and what it printed."""
    folder = tmp_path_factory.mktemp("leaves")
    server = JudgeServer()
    server.answer = answer
    rows = [{"prompt": f"q {HOSTILE}", "completion": f"{HOSTILE} {row}", "problem": 1} for row in range(4)]
    pairs = [
        {"prompt": f"q{row} {HOSTILE}", "response_1": f"a {HOSTILE}", "response_2": "b", "human": 1 + row % 2}
        for row in range(3)
    ]
    preferences = [{"prompt": HOSTILE, "chosen": f"a {HOSTILE}", "rejected": HOSTILE * 2}] * 2
    for name, table in {"rows": rows, "answers": rows, "pairs": pairs, "preferences": preferences}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    (folder / "r.py").write_text(REWARDS)
    words, telling = ({"use": f"./r.py:{name}"} for name in ("words", "telling"))
    policy = {"policy": "abstain", "fail_fast": False}
    judge = {"model": "tiny", "base_url": server.url, "api_key_env": "JUDGE_KEY", "attempts": 1}
    configs = {
        "c": {"rewards": {"words": words, "telling": {**telling, "on_failure": policy}}, "ledger": "ledger.sqlite"},
        "other": {"rewards": {"words": {"weight": 2}, "telling": {"weight": 1}}},
        "shouting": {"rewards": {"shouting": {"use": "./r.py:shouting"}}},
        "label": {"pairs": {"file": "pairs.jsonl"}, "judge": judge, "output": "probed"},
        "failing": {"pairs": {"file": "pairs.jsonl"}, "judge": {**judge, "model": "refused"}, "output": "failing"},
        "make": {
            "prompts": {"file": "rows.jsonl"},
            "policies": {"one": judge},
            "output": "made",
        },
        "merge": {"sources": {"one": {"file": "preferences.jsonl"}}, "output": "merged"},
    }
    for name, config in configs.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
    environment = {**os.environ, "JUDGE_KEY": KEY, "COLUMNS": "120", "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps([line.split() for line in COMMANDS])],
        cwd=folder, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    server.close()
    return folder, [json.loads(line) for line in done.stdout.splitlines()]


def test_every_command_comes_to_its_end(told: tuple[Path, list[Any]]) -> None:
    """It succeeds or refuses in a line; none ends with a traceback."""
    _, ran = told
    assert [arguments for arguments, *_ in ran] == [line.split() for line in COMMANDS]
    refused = [" ".join(arguments[:2]) for arguments, code, *_ in ran if code == 2]
    assert refused == ["score rows.jsonl", "label failing.yaml"]
    assert [arguments for arguments, code, _, err in ran if code not in {0, 2, 3} or "Traceback" in err] == []


def test_nothing_that_is_printed_acts_on_a_terminal(told: tuple[Path, list[Any]]) -> None:
    """No control character, no mark of direction, and only UTF-8: on standard output and on standard error."""
    _, ran = told
    acting = {
        " ".join(arguments): ACTS.findall(text)
        for arguments, _, *streams in ran
        for text in (stream.encode("latin-1").decode() for stream in streams)
        if ACTS.search(text)
    }
    assert acting == {}


def test_rows_on_standard_output_are_the_rows(told: tuple[Path, list[Any]]) -> None:
    """What was escaped is the same JSON."""
    folder, ran = told
    lines = (
        next(out for arguments, _, out, _ in ran if arguments[-1] == "-").encode("latin-1").decode().strip().split("\n")
    )
    kept = [json.loads(line) for line in (folder / "scored.jsonl").read_text("utf-8").strip().split("\n")]
    assert [json.loads(line)["completion"] for line in lines] == [row["completion"] for row in kept]
    assert kept[0]["completion"].startswith(HOSTILE)


def test_every_file_is_utf_8_and_a_page_has_no_markup_of_a_row(told: tuple[Path, list[Any]]) -> None:
    """Half a character is U+FFFD or an escape, whatever wrote the file."""
    folder, _ = told
    pages = 0
    for path in folder.rglob("*"):
        if path.suffix in {".json", ".jsonl", ".csv", ".md", ".html", ".yaml"}:
            text = path.read_text("utf-8")
            if path.suffix == ".html":
                pages += 1
                assert "<script>alert(1)" not in text, path.name
                text = text.partition('id="plots"')[0]  # then come plots as JSON, and plotly's own script
                assert not ACTS.search(text), path.name
            if path.suffix == ".md":
                assert not ACTS.search(text), path.name
    assert pages == 4


def test_no_file_and_no_stream_has_the_key(told: tuple[Path, list[Any]]) -> None:
    """Whichever spelling the server sent, and none in another one."""
    folder, ran = told
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    streams = {" ".join(arguments): "".join(streams).encode("latin-1") for arguments, _, *streams in ran}
    assert {name: found for name, content in {**files, **streams}.items() if (found := leaks(content))} == {}
    assert b"[key]" in files["labels/__job__/journal.jsonl"] + files["made/candidates.jsonl"]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_key_that_leaks_is_found(spelling: str) -> None:
    """The search of these tests finds every spelling, in JSON too."""
    assert leaks(spelling.encode())
    assert leaks(json.dumps({"a": spelling}).encode())


def leaks(content: bytes) -> list[str]:
    """The spellings of the key that stand in a content, as they are or escaped once more as JSON."""
    found = []
    for spelling in SPELLINGS:
        own = spelling[12:-4] if spelling.startswith(("QmVhcmVy", "eDp")) else spelling  # what the key alone spells
        forms = {own.encode(), json.dumps(own)[1:-1].encode()}
        found += [spelling for form in forms if form.lower() in content.lower()][:1]
    return found
