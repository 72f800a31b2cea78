from __future__ import annotations

import copy
import pickle
import re

import pytest

from rlaif_sdk import exceptions
from rlaif_sdk.exceptions import (
    ConfigError,
    DataError,
    MissingExtraError,
    RewardTimeoutError,
    RlaifError,
    needs_extra,
)

CLASSES = [value for value in vars(exceptions).values() if isinstance(value, type) and issubclass(value, RlaifError)]


def make(cls: type[RlaifError]) -> RlaifError:
    if cls is MissingExtraError:
        return MissingExtraError("torch", extra="models")
    if cls is ConfigError:
        return ConfigError("refused", file="c.yaml", line=3, key="rewards.a", hint="quote it")
    if cls is DataError:
        return DataError("refused", file="d.jsonl", row=7, hint="remove it")
    if issubclass(cls, exceptions.RewardError):
        return cls("failed", reward="brevity", hint="try again")
    return cls("failed", hint="try again")


def test_the_tree_at_the_top_of_the_module_is_the_real_one() -> None:
    """The documentation of the errors cannot drift from the classes."""
    drawn: dict[str, tuple[str, str]] = {}
    ancestors: list[str] = []
    for line in (exceptions.__doc__ or "").splitlines():
        if match := re.match(r"^([│├└─ ]*)([A-Z]\w+Error|RlaifError)\b(?: \((\w+)\))?", line):
            depth = len(match[1]) // 4
            ancestors[depth:] = [match[2]]
            drawn[match[2]] = (ancestors[depth - 1] if depth else "Exception", match[3] or "")
    real = {
        cls.__name__: (cls.__bases__[0].__name__, cls.__bases__[1].__name__ if len(cls.__bases__) > 1 else "")
        for cls in CLASSES
    }
    assert drawn == real


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("travel", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_an_error_keeps_its_type_text_and_attributes_when_copied_or_pickled(cls, travel) -> None:
    """Errors cross process boundaries whole, notes included."""
    error = make(cls)
    error.add_note("in reward 'brevity'")
    again = travel(error)
    assert type(again) is cls
    assert str(again) == str(error)
    assert vars(again) == vars(error)
    assert again.args == error.args
    assert again.__notes__ == ["in reward 'brevity'"]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_error_is_documented_and_ends_with_its_hint(cls) -> None:
    """The next step is the last thing that a user reads."""
    error = make(cls)
    assert cls.__doc__
    assert str(error).endswith(f"({error.hint})")


def test_errors_say_where() -> None:
    """File and line come first, in the form that editors and terminals link."""
    assert str(ConfigError("refused", file="c.yaml", line=3, key="a.b")) == "c.yaml:3: a.b: refused"
    assert str(ConfigError("refused", key="a.b")) == "a.b: refused"
    assert str(ConfigError("refused", file="c.yaml")) == "c.yaml: refused"
    assert str(DataError("refused", file="d.jsonl", row=7)) == "d.jsonl:7: refused"
    assert str(DataError("refused", row=7)) == "row 7: refused"
    assert str(RewardTimeoutError("too slow", reward="judge")) == "reward 'judge': too slow"


def test_a_missing_extra_carries_the_pip_command() -> None:
    """The message is the repair."""
    assert str(MissingExtraError("torch", extra="models")) == 'torch is not installed (pip install "rlaif-sdk[models]")'


@pytest.mark.parametrize(("what", "named"), [(None, "no_such_package"), ("the page's library", "the page's library")])
def test_an_import_of_a_package_that_is_not_there_names_its_extra(what: str | None, named: str) -> None:
    """By the module that is missing, or in words."""
    said = rf'^{named} is not installed \(pip install "rlaif-sdk\[report\]"\)$'
    with pytest.raises(MissingExtraError, match=said), needs_extra("report", what):
        import no_such_package  # noqa: F401


def test_a_package_that_is_there_and_broken_is_not_called_missing() -> None:
    """A library of the system is gone, say: its own error says why."""
    said = r"^onnxruntime cannot be imported: libcudart\.so\.12: cannot open .*rlaif-sdk\[onnx\]"
    with pytest.raises(MissingExtraError, match=said), needs_extra("onnx"):
        raise ImportError("libcudart.so.12: cannot open shared object file", name="onnxruntime")


def test_an_error_of_ours_within_an_import_stays_what_it_is() -> None:
    """An import within an import names its own extra."""
    with pytest.raises(MissingExtraError, match=r"rlaif-sdk\[onnx\]"), needs_extra("train"), needs_extra("onnx"):
        import no_such_package  # noqa: F401


def test_callers_can_catch_by_the_standard_library_s_classes() -> None:
    """Code that knows nothing of this SDK can still tell a time limit from a refused value."""
    with pytest.raises(TimeoutError):
        raise RewardTimeoutError("too slow", reward="judge")
    with pytest.raises(ValueError, match="refused"):
        raise ConfigError("refused")
    with pytest.raises(ImportError):
        raise MissingExtraError("torch", extra="models")
