"""Tests that cannot pass on the pretend device, each with the reason."""

from __future__ import annotations

UNFIT: dict[tuple[str, str], str] = {}
"""By the end of the file's path and the beginning of the test's name."""
