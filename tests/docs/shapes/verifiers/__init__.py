"""Rubrics, as of 0.1."""

from tests.integrations.environment_calls import Rubric

__all__ = ["Rubric"]
