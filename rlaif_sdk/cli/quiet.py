"""What libraries say of their own affairs is left out on the command line; ``RLAIF_DEBUG=1`` shows all of it."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_LIBRARIES = frozenset(
    [
        "accelerate",
        "datasets",
        "huggingface_hub",
        "onnx",
        "onnx_ir",
        "onnxruntime",
        "onnxscript",
        "peft",
        "ray",
        "torch",
        "transformers",
        "trl",
    ]
)
_FROM_THE_CACHE = ("Using the latest cached version of the dataset", "Found the latest cached dataset configuration")
"""What `datasets` says where it reads a data set without asking the hub."""
_BARS_OF_ROWS = "HF_DATASETS_DISABLE_PROGRESS_BARS"
_BARS_OF_FILES = "HF_HUB_DISABLE_PROGRESS_BARS"
"""Of downloads, and of weights that are read and written; whoever waits at a terminal sees them."""


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Leave out, until it ends, what the libraries beneath say that tells a user nothing.

    That is: progress bars of steps over rows, and in a file or a pipe all of them; warnings of what will change for
    developers; that a data set comes from the cache; the second and every further time that one line of code logs its
    message, as for each of a million rows.
    Whatever of this the user's own environment settles stays so. Begins before the libraries are imported.
    """
    if os.environ.get("RLAIF_DEBUG"):
        yield
        return
    os.environ.setdefault(_BARS_OF_ROWS, "1")
    if not sys.stderr.isatty():
        os.environ.setdefault(_BARS_OF_FILES, "1")
    before = logging.getLoggerClass()
    logging.setLoggerClass(_Logger)
    _once.told.clear()
    _once.is_on = True
    try:
        with warnings.catch_warnings():
            for category in (FutureWarning, DeprecationWarning):
                warnings.filterwarnings("ignore", category=category, module=rf"({'|'.join(sorted(_LIBRARIES))})\b")
            yield
    finally:
        _once.is_on = False
        logging.setLoggerClass(before)


class _Once(logging.Filter):
    """Lets each message through once, whatever is filled into it; what tells a user nothing never."""

    def __init__(self) -> None:
        super().__init__()
        self.is_on = False
        self.told: set[tuple[str, int, str]] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is told."""
        if self.is_on and str(record.msg).startswith(_FROM_THE_CACHE):
            return False
        what = (record.pathname, record.lineno, record.name)
        if not self.is_on or what not in self.told:
            self.told.add(what)
            return True
        return False


_once = _Once()


class _Logger(logging.Logger):
    """A logger that, where it is a library's, tells each of its messages once."""

    def __init__(self, name: str, level: int = logging.NOTSET) -> None:
        super().__init__(name, level)
        if name.partition(".")[0] in _LIBRARIES:
            self.addFilter(_once)
