"""What an environment is made of."""

from tests.integrations.environment_calls import TextEnv as BaseTextEnv

__all__ = ["BaseTextEnv"]
