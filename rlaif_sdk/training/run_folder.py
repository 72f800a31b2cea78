"""The folder of a run: ``run.json``, which says what the run was made of, its other files, and resuming it.

``run.json`` is written before anything is loaded and completed at the end. It holds the config with its defaults, digests
of the rows and of the rewards' code, the models, versions, hardware, the estimate of memory and what was really used. A run
that was killed is the one whose status is still ``running``.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import time
import uuid
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif_sdk import __version__
from rlaif_sdk.exceptions import ConfigError, StateError, needs_extra
from rlaif_sdk.io.digests import json_digest
from rlaif_sdk.io.files import without_nan, write_json
from rlaif_sdk.io.jobs import differences, locked, shown
from rlaif_sdk.io.processors import processor_name
from rlaif_sdk.io.redaction import without_secrets
from rlaif_sdk.io.tables import open_rows, write_table
from rlaif_sdk.io.versions import installed_versions
from rlaif_sdk.training.config import CHECKPOINTS, ComposedRun, Run
from rlaif_sdk.training.methods import check_settings, get_method, trainer_settings
from rlaif_sdk.training.ranks import first_process, process_count

if TYPE_CHECKING:
    from datasets import Dataset

    from rlaif_sdk.composer import Composer
    from rlaif_sdk.training.preflight import Preflight


MANIFEST_FILE = "run.json"
_FORMAT = 1
_PACKAGES = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "datasets",
    "accelerate",
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
)


_OF_MODELS = ("name", "parameters", "bytes", "dtype", "digest")


@contextlib.contextmanager
def recorded(
    run: Run,
    settings: Any,
    tables: Mapping[str, Dataset],
    *,
    checkpoint: Path | None = None,
    resume: bool = False,
    report: Callable[[str], None] = lambda _: None,
) -> Iterator[dict[str, Any]]:
    """Check a run before it loads anything, and keep ``run.json`` in its folder while it runs.

    Args:
        run: The loaded config; with ``run.allow_changed`` it may differ from the one that is resumed.
        settings: See `rlaif_sdk.training.preflight.check_run`; so for the tables.
        tables: See there.
        checkpoint: That of the run which is resumed; None begins anew.
        resume: Whether the run in the folder is resumed, from its beginning where it has no checkpoint.
        report: Called with each warning.

    Yields:
        A mapping for what came of the run; it is written under ``results``.

    Raises:
        RlaifError: Something would keep the run from working.
        ConfigError: The run that is resumed had another config, other rows or other code.
        StateError: The manifest of the run that is resumed cannot be read.
        DataError: Another process works in the run's folder.
    """
    from rlaif_sdk.training.preflight import check_run
    from rlaif_sdk.training.preflight.memory import peak_memory

    with contextlib.ExitStack() as opened:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are given when the run's own composers are made
            composers = {key: opened.enter_context(make()) for key, make in composers_of(run)}
        checked = check_run(run, settings, tables, composers.get("composition"))
    checked.raise_problems()
    for warning in checked.warnings:
        report(f"warning: {warning}")
    file = run.output / MANIFEST_FILE
    manifest = describe_run(run, checked)
    if resume:
        manifest |= _resumed(run, checkpoint, manifest)
    writes = settings.process_index == 0
    results: dict[str, Any] = {}
    with locked(run.output) if writes else contextlib.nullcontext():
        if writes:
            write_json(file, manifest)
        status = "failed"
        try:
            yield results
            status = "finished"
        except BaseException as error:
            status = "interrupted" if isinstance(error, KeyboardInterrupt | SystemExit) else "failed"
            manifest["error"] = f"{type(error).__name__}: {error}"
            raise
        finally:
            manifest |= {"status": status, "ended": now(), "peak_memory_bytes": peak_memory(), "results": results}
            if writes:
                with contextlib.suppress(OSError):  # the trainer makes the folder even if nothing is to be saved
                    run.checkpoints.rmdir()
                write_json(file, manifest)


def composers_of(run: Run) -> Iterator[tuple[str, Callable[[], Composer]]]:
    """What makes each composer of a run, without a ledger, by its key in the config."""
    if isinstance(run, ComposedRun):
        for key in run.composition_keys:
            yield key, partial(run.composer, key, ledger=False)


def describe_run(run: Run, checked: Preflight) -> dict[str, Any]:
    """The manifest of a run that begins."""
    from rlaif_sdk.plugins import Registry

    config = resolved_config(run)
    return {
        "format": _FORMAT,
        "id": uuid.uuid4().hex,
        "status": "running",
        "method": run.method,
        "started": now(),
        "seed": run.config.seed,
        "processes": process_count(),
        "config": config,
        "config_digest": json_digest(config),
        "data": checked.data,
        "code": run.code() if isinstance(run, ComposedRun) else {},
        "models": [
            {"role": model.role, **{name: getattr(model.files, name) for name in _OF_MODELS}}
            for model in checked.models
        ],
        "versions": versions(),
        "plugins": sorted({source.distribution for source in Registry.default() if source.distribution}),
        "hardware": hardware(),
        "memory_estimate_bytes": checked.memory.to_dict() if checked.memory else None,
    }


def resolved_config(run: Run) -> dict[str, Any]:
    """A run's config with every default, its composition in full, and without secrets; JSON-ready."""
    config: dict[str, Any] = run.config.model_dump(mode="json", by_alias=True)
    if isinstance(run, ComposedRun):
        for key in run.composition_keys:
            config[key] = run.composition_config(key).model_dump(mode="json", by_alias=True)
    hidden: dict[str, Any] = without_nan(without_secrets(config))
    return hidden


def versions() -> dict[str, str]:
    """The versions of Python, of this SDK, and of the libraries that bear on a result."""
    return {"python": platform.python_version(), "rlaif_sdk": __version__, **installed_versions(_PACKAGES)}


def hardware() -> dict[str, Any]:
    """What the machine is, as JSON values, for the record of a run."""
    import torch

    from rlaif_sdk.training.preflight.memory import GIB, Machine

    cuda = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "platform": platform.platform(),
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "ram_gib": round(Machine.look().ram / GIB, 1),
        "cuda": cuda,
    }


def now() -> str:
    """The time, in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def status_of(folder: Path) -> str | None:
    """How the run in a folder stands: ``running`` (or killed), ``finished``, ``failed`` or ``interrupted``.

    Returns:
        None where the folder holds no manifest.

    Raises:
        StateError: The manifest cannot be read.
    """
    manifest = _read(folder / MANIFEST_FILE)
    return str(manifest["status"]) if manifest else None


def _read(file: Path) -> dict[str, Any] | None:
    """A manifest, if there is one.

    Raises:
        StateError: It cannot be read.
    """
    try:
        manifest: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise StateError(f"{file} cannot be read: {error}", hint="remove it to resume without it") from error
    return manifest


def _resumed(run: Run, checkpoint: Path | None, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The id of the run that is resumed, and its earlier starts.

    A checkpoint has the manifest of the run that made it. Where that is the folder's own run, the folder's manifest is
    compared, which has what it was last resumed with.

    Raises:
        ConfigError: It was another run.
        StateError: Its manifest cannot be read.
    """
    file = run.output / MANIFEST_FILE
    latest, made_by = _read(file), _read(checkpoint / MANIFEST_FILE) if checkpoint else None
    old = latest if made_by is None or (latest and latest.get("id") == made_by["id"]) else made_by
    if old is None:
        warnings.warn(
            f"{file} is missing: whether config and data are those of the checkpoint is not known", stacklevel=5
        )
        return {"resumed": []}
    changed = list(changes(old, manifest))
    if changed and not run.allow_changed:
        raise ConfigError(
            "the run that is resumed was another one:\n  " + "\n  ".join(changed),
            file=run.document.file,
            hint="undo this, or resume with --allow-changed",
        )
    others = [
        f"{name} {before} → {after}" for name, before, after in differences(old["versions"], manifest["versions"])
    ]
    if others:
        warnings.warn(f"the run that is resumed had other versions: {', '.join(others)}", stacklevel=5)
    start = {"started": old["started"], "status": old["status"], "changed": changed}
    return {"id": old.get("id", manifest["id"]), "resumed": [*old.get("resumed", []), start]}


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """What a run's manifest has otherwise than an earlier one, a line each: ``ppo.max_steps: 2 → 4``.

    The folder of the results may differ, since it may have been moved.
    """
    if old["method"] != new["method"]:
        yield f"method: {old['method']} → {new['method']}"
    before, after = (manifest.get("processes", 1) for manifest in (old, new))
    if before != after:
        yield f"processes: {before} → {after}, which draw other prompts"
    for key, before, after in differences(old["config"], new["config"]):
        if key != "output":
            yield f"{key}: {shown(before)} → {shown(after)}"
    for part, what in (("data", "rows"), ("code", "code"), ("models", "files")):
        for name, before, after in differences(_digests(old[part]), _digests(new[part])):
            counts = [_rows(side[part], name) for side in (old, new)]
            yield f"{part}.{name}: other {what}, {counts[0]}{shown(before)} → {counts[1]}{shown(after)}"


def _digests(part: Any) -> dict[str, str]:
    """Digests by name, of the three forms that a manifest's parts have."""
    if isinstance(part, list):
        return {model["role"]: model["digest"] for model in part}
    return {name: entry["digest"] if isinstance(entry, Mapping) else entry for name, entry in part.items()}


def _rows(part: Any, name: str) -> str:
    entry = part.get(name) if isinstance(part, Mapping) else None
    return f"{entry['rows']} rows " if isinstance(entry, Mapping) else ""


MODEL_FOLDER = "model"
HISTORY_FILE = "history.jsonl"
EVALUATION_FILE = "evaluation.jsonl"
SAMPLES_FILE = "samples.jsonl"


def starting_point(run: Run, *, resume: bool) -> Path | None:
    """The checkpoint that training resumes from; None begins anew.

    Args:
        run: The loaded config.
        resume: Whether to resume.

    Raises:
        ConfigError: The output folder already holds a trained model, or a run that was stopped, and is not to be
            resumed; or its run was finished; or there is nothing to resume.
        StateError: The manifest of the run that is resumed cannot be read.
    """
    model_folder = run.output / MODEL_FOLDER
    trained, status = model_folder.exists(), status_of(run.output)
    if trained and (not resume or status in {None, "finished"}):
        hint = "to train on, name it as model.name of a new run" if resume else "name another folder"
        raise run.document.error(f"{run.output} already holds a trained model", ("output",), hint)
    checkpoint = last_checkpoint(run.checkpoints)
    if not resume:
        stopped = status in {"running", "interrupted"} and first_process()  # the others may come when it has begun
        if checkpoint is not None or stopped:
            where = "" if checkpoint else " without a checkpoint"
            how = "resumes it" if checkpoint else "begins it anew"
            hint = f"--resume {how}, or name another folder"
            raise run.document.error(f"{run.output} holds an unfinished run{where}", ("output",), hint)
        if status == "failed":
            warnings.warn(
                f"{run.output} holds a run that failed before its first checkpoint: it begins anew", stacklevel=3
            )
        return None
    if checkpoint is None and status is not None and not trained:
        warnings.warn(f"{run.output} holds no complete checkpoint: the run begins anew", stacklevel=3)
        return None
    if checkpoint is None:
        makes = "save_strategy and save_steps make them"
        kept = f"{model_folder} holds the model as trained; to begin anew, remove it or name another folder"
        raise run.document.error(
            f"{run.checkpoints} holds no complete checkpoint to resume from", (run.method,), kept if trained else makes
        )
    newest = _checkpoints(run.checkpoints)[0]
    if newest != checkpoint:
        warnings.warn(f"{newest} is incomplete: training resumes from {checkpoint.name}", stacklevel=3)
    return checkpoint


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written whole."""
    return next(filter(_is_whole, _checkpoints(folder)), None)


def _checkpoints(folder: Path) -> list[Path]:
    """All of them, the newest first."""
    return sorted(folder.glob("checkpoint-[0-9]*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)


def _is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint has the trainer's state, which is written last, and no file of weights that ends early."""
    from rlaif_sdk.training.preflight.model_files import safetensors_header

    try:
        json.loads((checkpoint / "trainer_state.json").read_bytes())
        for file in checkpoint.rglob("*.safetensors"):
            safetensors_header(file)
    except (OSError, ValueError):
        return False
    return all(zipfile.is_zipfile(file) for suffix in ("pt", "pth") for file in checkpoint.rglob(f"*.{suffix}"))


def can_resume(training: Path) -> bool:
    """Make a run's folder ready for a start, and say whether it resumes from a checkpoint.

    A model without the mark that training was finished may have been cut off while it was saved: it is removed, and
    without a checkpoint everything else of the run as well, but the ledger: what was paid for is not paid for again.
    """
    from rlaif_sdk.composer.ledger import FILE_NAME

    resume = last_checkpoint(training / CHECKPOINTS) is not None
    if resume:
        shutil.rmtree(training / MODEL_FOLDER, ignore_errors=True)
        return True
    for path in training.iterdir() if training.is_dir() else ():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif not path.name.startswith(FILE_NAME):
            path.unlink()
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """What came of a run.

    Attributes:
        method: What trained it, as it is named in a config.
        history: What the trainer logged, one mapping a logged step.
        model_folder: The trained model, for plain ``from_pretrained``; an adapter is merged into it.
        output: The folder of the run.
        steps: Optimiser steps done.
        training_seconds: Time spent in training, without loading and evaluation.
    """

    method: str
    history: Sequence[Mapping[str, Any]]
    model_folder: Path
    output: Path
    steps: int
    training_seconds: float


class _AllStepsDoneError(Exception):
    """Leaves the trainer's loop before an epoch in which nothing is to be done."""


def run_training(
    run: Run, trainer: Any, checkpoint: Path | None, results: dict[str, Any], *, logged: str
) -> dict[str, Any]:
    """Train, from a checkpoint if there is one, and write `HISTORY_FILE`.

    Each checkpoint gets the manifest of the run. `transformers.Trainer` does one step too many where it resumes from the last step, if that ends no epoch: it looks at
    the number of steps only after a step.

    Args:
        run: The run, whose manifest `recorded` keeps.
        trainer: Of transformers' kind.
        checkpoint: The folder of the checkpoint.
        results: Of `recorded`; gets the steps and seconds.
        logged: What the entries of the trainer's log have that are kept.

    Returns:
        The fields of a `RunResult`.
    """
    from transformers import TrainerCallback

    class RunFolder(TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            del args, control, kwargs
            saved = run.checkpoints / f"checkpoint-{state.global_step}"
            if state.is_world_process_zero and saved.is_dir():
                write_json(saved / MANIFEST_FILE, _read(run.output / MANIFEST_FILE))

        def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            del args, control, kwargs
            if checkpoint is not None and state.global_step >= state.max_steps:
                raise _AllStepsDoneError

    started = time.monotonic()
    trainer.add_callback(RunFolder())
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except _AllStepsDoneError:
        if trainer.args.load_best_model_at_end and trainer.state.best_model_checkpoint:
            trainer._load_best_model()  # noqa: SLF001 - transformers has no public name for it
        trainer.control = trainer.callback_handler.on_train_end(trainer.args, trainer.state, trainer.control)
    finally:
        results["steps"] = int(trainer.state.global_step)
    seconds = time.monotonic() - started
    history = [without_nan(entry) for entry in trainer.state.log_history if logged in entry]
    if first_process():
        write_table(history, run.output / HISTORY_FILE)
    results["training_seconds"] = round(seconds, 1)
    return {
        "method": run.method,
        "history": history,
        "model_folder": run.output / MODEL_FOLDER,
        "output": run.output,
        "steps": results["steps"],
        "training_seconds": seconds,
    }


def check(run: Run, *, report: Callable[[str], None] = lambda _: None) -> Preflight:
    """Check everything about a run that can be checked without loading the policy; nothing is written.

    Args:
        run: The loaded config.
        report: See `check_parts`.

    Returns:
        What was found; what is wrong is among its problems. See `check_parts`.

    Raises:
        MissingExtraError: The extra ``train`` is not installed.
    """
    from rlaif_sdk.training.preflight import Preflight

    found = Preflight()
    with found.noting():
        starting_point(run, resume=False)
    with found.noting():
        check_settings(run)
    rows = partial(get_method(run.method).load_rows, run)
    return check_parts(found, run, partial(trainer_settings, run), rows, composers_of(run), report=report)


def check_parts(
    found: Preflight,
    run: Run,
    settings: Callable[[], Any],
    rows: Callable[..., tuple[Dataset, Dataset]],
    composers: Iterable[tuple[str, Callable[[], Composer]]],
    *,
    report: Callable[[str], None] = lambda _: None,
) -> Preflight:
    """Check what a run, or a loop over runs, is made of; nothing is written.

    Each reward scores the first row, answered by `rlaif_sdk.training.preflight.CHECK_ANSWER`, so a reward that cannot
    score is found here. One that loads a model loads it. Only where nothing is wrong so far, the trainer's settings are
    made and the policy is looked at, for which torch and the trainer's libraries are imported.

    Args:
        found: What is known already.
        run: The config.
        settings: Gives the trainer's settings; None where the policy is not to be looked at.
        rows: Loads the rows to train on, and the held-out ones, with ``open_table`` of
            `rlaif_sdk.training.data.load_split`.
        composers: What makes each composer, by its key in the config.
        report: Called with a line of text before the libraries are imported.
    """
    from rlaif_sdk.training.preflight import check_inputs, check_policy, first_row

    tables: dict[str, Dataset] = {}
    with contextlib.ExitStack() as opened:
        opened.enter_context(needs_extra("train"))
        with found.noting():
            tables = dict(zip(("train", "held_out"), rows(open_table=open_rows), strict=True))
        made: dict[str, Composer] = {}
        for key, make in composers:
            with warnings.catch_warnings(record=True) as caught, found.noting():
                warnings.simplefilter("always")
                made[key] = opened.enter_context(make())
            found.warnings += [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)]
        check_inputs(found, run, tables, made.get("composition"))
        for key, composer in made.items() if not found.problems else ():
            found.score(key, composer, first_row(tables["train"]), "the first row of data.train")
        if found.problems:
            return found
        report("Nothing is wrong so far: now torch and the trainer's libraries, for the policy and its memory.")
        given: Any = None
        with found.noting():
            given = settings()
        if given is not None:
            check_policy(found, run, given, tables, made.get("composition"))
        for key, composer in made.items() if not found.problems else ():
            found.count_calls(key, composer, getattr(given, "num_generations", 1))
    return found
