"""What an environment is made of."""

from tests.integrations.environment_calls import EnvironmentReturn

__all__ = ["EnvironmentInterface", "EnvironmentReturn"]


class EnvironmentInterface:
    """An environment that is stepped."""
