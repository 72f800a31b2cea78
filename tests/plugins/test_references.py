from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from rlaif_sdk import Composer, ConfigError, RewardBatch
from rlaif_sdk.plugins.references import code_digests, is_reference, load_reference

REWARDS = """
    from rlaif_sdk import Reward

    def brevity(completions, *, per_letter: float = 1.0):
        return [-per_letter * len(text) for text in completions]

    class Fixed(Reward):
        def __init__(self, value=0.0):
            self.value = value
        def score(self, batch):
            return [self.value] * len(batch)

    class Duck:
        def __init__(self, value):
            self.value = value
        def score(self, batch):
            return [self.value] * len(batch)

    fixed = Fixed(3.0)
    number = 5
"""
BATCH = RewardBatch(prompts=["a"], completions=["four"])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("toxicity", False),
        ("./r.py:brevity", True),
        ("package.module:brevity", True),
        ("r.py", True),
        ("my.reward", False),
    ],
)
def test_a_reference_is_told_from_a_plugin_s_name(name: str, expected: bool) -> None:
    """Plugin names have neither colon nor suffix."""
    assert is_reference(name) is expected


@pytest.mark.parametrize(
    ("entry", "total"),
    [
        ("{use: './r.py:brevity'}", -4.0),
        ("{use: './r.py:brevity', params: {per_letter: 2}}", -8.0),
        ("{use: './r.py:Fixed', params: {value: 2.0}}", 2.0),
        ("{use: './r.py:Fixed'}", 0.0),
        ("{use: './r.py:Duck', params: {value: 1.5}}", 1.5),
        ("{use: './r.py:fixed'}", 3.0),
    ],
)
def test_a_config_names_a_reward_in_a_file_beside_it(write, registry, entry: str, total: float) -> None:
    """Functions, classes and objects, without packaging; the path is relative to the config."""
    write("r.py", REWARDS)
    config = write("c.yaml", f"rewards:\n  mine: {entry}\n")
    with Composer.from_config(config, registry=registry) as composer:
        assert composer.compose(BATCH).to_list() == [total]


def test_a_config_names_a_reward_in_an_installed_module(write, registry, tmp_path, monkeypatch) -> None:
    """Any importable module will do."""
    monkeypatch.syspath_prepend(str(tmp_path))
    write("house_rewards/inner.py", REWARDS)
    write("house_rewards/__init__.py", "")
    with Composer.from_config({"rewards": {"x": {"use": "house_rewards.inner:fixed"}}}, registry=registry) as composer:
        assert composer.compose(BATCH).to_list() == [3.0]


@pytest.mark.parametrize(
    ("use", "problem"),
    [
        ("./gone.py:brevity", "there is no file .*gone.py"),
        ("./r.py:brevty", "'./r.py' has no attribute 'brevty' .*brevity"),
        ("./r.py", "names no attribute"),
        ("./r.py:", "names no attribute"),
        ("./r.py:number", "5 is no reward"),
        ("./r.py:Duck", "cannot be made: .*missing 1 required"),
        ("no_such_module:x", "'no_such_module' cannot be imported: ModuleNotFoundError"),
        ("./bad.py:x", "'./bad.py' cannot be imported: ZeroDivisionError"),
        ("./leaves.py:x", "'./leaves.py' cannot be imported: SystemExit"),
        ("./syntax.py:x", "'./syntax.py' cannot be imported: SyntaxError"),
    ],
)
def test_a_reference_that_leads_nowhere_is_refused_with_the_config_s_line(
    write, registry, use: str, problem: str
) -> None:
    """The message says what is missing, and where it was asked for."""
    write("r.py", REWARDS)
    write("bad.py", "x = 1 / 0")
    write("leaves.py", "raise SystemExit")
    write("syntax.py", "def (")
    config = write("c.yaml", f"rewards:\n  mine:\n    use: {use!r}\n")
    with pytest.raises(ConfigError, match=problem) as caught:
        Composer.from_config(config, registry=registry)
    assert caught.value.file == str(config)
    assert caught.value.line in {2, 3}


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        (
            "{use: './r.py:brevity', params: {per_leter: 2}}",
            r"params.per_leter: unknown key \(did you mean 'per_letter'",
        ),
        ("{use: './r.py:brevity', params: {per_letter: x}}", "params.per_letter: input should be a valid number"),
        ("{use: './r.py:fixed', params: {value: 1}}", "takes no params .*name its class instead"),
        ("{use: './r.py:Fixed', params: {vlue: 1}}", "cannot be made: .*vlue"),
    ],
)
def test_parameters_that_do_not_fit_are_refused_with_their_line(write, registry, entry: str, problem: str) -> None:
    """Whether the reward is a function, a class or an object."""
    write("r.py", REWARDS)
    config = write("c.yaml", f"rewards:\n  other: {{use: './r.py:fixed'}}\n  mine: {entry}\n")
    with pytest.raises(ConfigError, match=problem) as caught:
        Composer.from_config(config, registry=registry)
    assert caught.value.line == 3


def test_a_file_is_run_once_and_two_files_of_one_name_are_kept_apart(write, tmp_path) -> None:
    """Two rewards of one file share its module; `a/r.py` and `b/r.py` do not."""
    write("a/r.py", "value = [1]")
    write("b/r.py", "value = [2]")
    first = load_reference("a/r.py:value", tmp_path)
    assert load_reference("./a/r.py:value", tmp_path) is first
    assert load_reference("r.py:value", tmp_path / "b") == [2]


def test_a_file_that_failed_is_tried_again(write, tmp_path) -> None:
    """A half-run module does not stay behind."""
    write("r.py", "x = 1 / 0")
    with pytest.raises(ConfigError):
        load_reference("r.py:x", tmp_path)
    write("r.py", "x = 100")
    assert load_reference("r.py:x", tmp_path) == 100


def test_a_nested_attribute_is_reached(write, tmp_path) -> None:
    """`file.py:Class.method` names what it says."""
    write("r.py", "class A:\n    class B:\n        x = 7\n")
    assert load_reference("r.py:A.B.x", tmp_path) == 7


def test_code_of_a_module_counts_as_that_of_a_file_does(tmp_path, monkeypatch):
    """Whatever `use` names, a fallback's too; the module is not imported, and one that is not there is no code."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "a_room").mkdir()
    (tmp_path / "a_room" / "rewards.py").write_text("raise AssertionError('imported')\n")
    rewards = {"one": {"use": "a_room.rewards:wanted"}, "two": {"use": "time:time"}, "three": {"use": "no.such:module"}}
    composition = {"rewards": rewards, "fallbacks": {"four": {"use": "./a_room/rewards.py:wanted"}, "five": None}}
    before = code_digests(composition, tmp_path)
    assert list(before) == ["./a_room/rewards.py", "a_room.rewards"]
    assert len(set(before.values())) == 1
    (tmp_path / "a_room" / "rewards.py").write_text("raise AssertionError('other')\n")
    after = code_digests(composition, tmp_path)
    assert [name for name in before if after[name] != before[name]] == ["./a_room/rewards.py", "a_room.rewards"]


HANGS = {
    "file": ("hanging.py", "import time\ntime.sleep(600)\ndef r(completions): return [0.0]\n", "./hanging.py:r"),
    "waits": ("waiting.py", "import threading\nthreading.Event().wait()\nr = 1\n", "./waiting.py:r"),
    "module": ("hanging_module_of_a_test.py", "import time\ntime.sleep(600)\nr = 1\n", "hanging_module_of_a_test:r"),
}


@pytest.mark.parametrize("what", HANGS)
def test_an_import_that_hangs_costs_its_setup_timeout(write, tmp_path, monkeypatch, what: str) -> None:
    """The error names the file and what to do; asked again, it says so again."""
    name, text, use = HANGS[what]
    write(name, text)
    monkeypatch.syspath_prepend(tmp_path)
    config = write("c.yaml", f"rewards:\n  a:\n    use: '{use}'\n    setup_timeout: 0.5\n")
    since = time.monotonic()
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"was not imported within its limit of 0\.5 s.*setup_timeout") as caught:
            Composer.from_config(config)
        assert caught.value.line == 3
    assert time.monotonic() - since < 60


@pytest.mark.parametrize("ending", ["sys.exit()", "raise SystemExit(0)", "exit()", "quit(3)", "raise GeneratorExit"])
def test_a_file_that_ends_at_its_import_is_an_error(write, ending: str) -> None:
    """Nothing ends but the import."""
    write("ends.py", f"import sys\n{ending}\n")
    config = write("c.yaml", "rewards:\n  a: {use: './ends.py:r'}\n")
    with pytest.raises(ConfigError, match=r"ends.py' cannot be imported: (SystemExit|GeneratorExit)"):
        Composer.from_config(config)


@pytest.mark.parametrize(
    ("ending", "told"),
    [
        (
            "os._exit(0)",
            "cannot be imported: its worker process ended by itself with exit status 0 .*must not end its process",
        ),
        ("os._exit(3)", "ended by itself with exit status 3"),
        ("os.kill(os.getpid(), 9)", "was ended by SIGKILL"),
        ("os.abort()", "was ended by SIGABRT"),
        ("import time; time.sleep(600)", r"was not imported within its limit of 1 s .*setup_timeout"),
        ("raise ValueError('no')", "ValueError: no"),
    ],
)
def test_an_isolated_file_that_ends_its_process_ends_a_worker_s(write, ending: str, told: str) -> None:
    """Whatever it does at its import: the error has the line of the config, and this process goes on."""
    write("ends.py", f"import os\n{ending}\ndef r(completions): return [0.0 for _ in completions]\n")
    limit = 1 if "sleep" in ending else 60
    text = (
        f"rewards:\n  a:\n    use: './ends.py:r'\n    setup_timeout: {limit}\n    execution: {{isolation: process}}\n"
    )
    with pytest.raises(ConfigError, match=rf"ends.py' .*{told}") as caught:
        Composer.from_config(write("c.yaml", text))
    assert caught.value.line == 3


@pytest.mark.parametrize("threads", [2, 4, 16])
@pytest.mark.parametrize("limit", [None, 60.0])
def test_threads_that_ask_for_one_file_import_it_once(write, tmp_path, threads: int, limit) -> None:
    """Each gets the whole of it."""
    write(
        "slow.py",
        "import time\nfrom pathlib import Path\nwith Path(__file__).with_name('log').open('a') as log: log.write('x')\n"
        "time.sleep(0.3)\nvalue = object()\n",
    )
    with ThreadPoolExecutor(threads) as pool:
        found = set(pool.map(lambda _: load_reference("slow.py:value", tmp_path, limit=limit), range(threads)))
    assert len(found) == 1
    assert (tmp_path / "log").read_text() == "x"


@pytest.mark.parametrize("limit", [None, 60.0])
def test_a_module_that_a_statement_is_importing_is_waited_for(write, tmp_path, monkeypatch, limit) -> None:
    """What another thread has begun is not taken half done."""
    name = f"module_of_a_statement_{limit is None}".lower()
    write(
        f"{name}.py",
        "import time\nfrom pathlib import Path\nPath(__file__).with_name('begun').touch()\ntime.sleep(0.5)\nx = 3\n",
    )
    monkeypatch.syspath_prepend(tmp_path)
    with ThreadPoolExecutor(1) as pool:
        statement = pool.submit(__import__, name)
        while not (tmp_path / "begun").exists():
            time.sleep(0.01)
        assert load_reference(f"{name}:x", tmp_path, limit=limit) == 3
        statement.result()


def test_threads_that_ask_for_one_broken_file_are_all_told(write, tmp_path) -> None:
    """And the next one tries again."""
    write("broken.py", "import time\ntime.sleep(0.2)\nx = 1 / 0\n")

    def ask(_: int) -> str:
        with pytest.raises(ConfigError) as caught:
            load_reference("broken.py:x", tmp_path, limit=60.0)
        return str(caught.value)

    with ThreadPoolExecutor(4) as pool:
        assert {message.split(": ", 1)[1] for message in pool.map(ask, range(4))} == {
            "ZeroDivisionError: division by zero"
        }
    write("broken.py", "x = 5")
    assert load_reference("broken.py:x", tmp_path, limit=60.0) == 5


def test_a_file_that_names_itself_while_it_is_imported_sees_what_there_is(write, tmp_path) -> None:
    """A script that composes its own rewards."""
    write(
        "own.py",
        "from pathlib import Path\nfrom rlaif_sdk import Composer\ndef r(completions): return [0.0]\n"
        "Composer.from_config({'rewards': {'a': {'use': str(Path(__file__)) + ':r'}}}).close()\nx = 1\n",
    )
    assert load_reference("own.py:x", tmp_path, limit=60.0) == 1
