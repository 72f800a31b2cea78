"""The tiny chat model of the judges' tests."""

from tests.judges.conftest import tiny_chat

__all__ = ["tiny_chat"]
