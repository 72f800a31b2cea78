"""What the tests of this plugin share."""

import asyncio
import os
import subprocess
import sys

import pytest

from rlaif_execution import policy, reward, rlaif_rewards
from rlaif_sdk import RewardBatch

SPEC = next(iter(rlaif_rewards()))


CONTAINERS = f"rlaif-execution-tests={os.getpid()}"


@pytest.fixture(params=["landlock", *(pytest.param(name, marks=pytest.mark.slow) for name in ("bubblewrap", "podman"))])
def sandbox(request, monkeypatch):
    """The name of the sandbox that programs run in; skips where the machine does not have it."""
    if request.param == "bubblewrap":
        use_bubblewrap(monkeypatch)
    elif request.param == "podman":
        command = tuple(request.getfixturevalue("podman"))
        made = reward.Policy
        monkeypatch.setattr(reward, "Policy", lambda **given: made(**given | {"sandbox_command": command}))
    elif lacks := policy._what_landlock_lacks()[0]:
        pytest.skip(lacks)
    return request.param


def use_bubblewrap(monkeypatch):
    """Run programs in bubblewrap, as on a kernel without Landlock; skips where it does not run."""
    try:
        subprocess.run(["bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"bubblewrap does not run here: {error}")
    monkeypatch.setattr(policy, "_what_landlock_lacks", lambda: ("no Landlock", ""))


@pytest.fixture(scope="session")
def podman(tmp_path_factory):
    """A command that gives a program a container of this machine's Python; skips where podman does not run."""
    root = tmp_path_factory.mktemp("root")
    root.chmod(0o755)
    for name in ("dev", "etc", "proc", "run", "sys", "tmp", "usr", "var"):
        (root / name).mkdir()
    for name in ("bin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    run = ["run", "--rm", "-i", f"--label={CONTAINERS}", "--network=none", "--ipc=none", "--pids-limit=64"]
    limits = ["--ulimit=nofile=256:256", "--ulimit=nproc=1024:1024", "--read-only", "--read-only-tmpfs=false"]
    folders = ["--volume=/usr:/usr:ro", f"--volume={sys.base_prefix}:/usr/local:ro", "--rootfs", str(root)]
    failed = "it is not installed"
    for engine in (["podman"], ["podman", "--runtime=runc"]):
        command = [*engine, *run, *limits, *folders]
        try:
            subprocess.run([*command, "python3", "-c", ""], check=True, capture_output=True, text=True, timeout=60)
        except subprocess.CalledProcessError as error:
            failed = error.stderr.strip().rpartition("\n")[2]
        except OSError:
            break
        else:
            return command
    pytest.skip(f"podman does not run here: {failed}")


@pytest.fixture
def containers(request):
    """Lists those of these tests that are there, or are in a state; there are none where programs run in no container."""
    in_podman = "sandbox" in request.fixturenames and request.getfixturevalue("sandbox") == "podman"

    def list_them(state=None):
        if not in_podman:
            return []
        listed = ["podman", "ps", "--all", "--quiet", f"--filter=label={CONTAINERS}"]
        listed += [f"--filter=status={state}"] if state else []
        return subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split()

    return list_them


@pytest.fixture
def in_sandbox(request, sandbox):
    """Python that has another process use the sandbox."""
    if sandbox == "podman":
        given = f"dict(given, sandbox_command={tuple(request.getfixturevalue('podman'))})"
        return (
            f"from rlaif_execution import reward\nmade = reward.Policy\nreward.Policy = lambda **given: made(**{given})"
        )
    lacks = "from rlaif_execution import policy\npolicy._what_landlock_lacks = lambda: ('no Landlock', '')"
    return lacks if sandbox == "bubblewrap" else ""


@pytest.fixture(scope="session")
def built():
    """Rewards by their parameters, set up once."""
    rewards = {}
    yield rewards
    for each in rewards.values():
        each.close()


@pytest.fixture
def score(built, sandbox):
    """Scores one answer, the code alone, against its tests."""

    def scored(answer, tests, *, name="f", prompt="", **params):
        key = (sandbox, *sorted(params.items()))
        if key not in built:
            built[key] = SPEC.build({"code": "whole", **params})
            built[key].setup()
        batch = RewardBatch([prompt], [answer], columns={"tests": [tests], "entry_point": [name]})
        return asyncio.run(built[key].score(batch))[0]

    return scored
