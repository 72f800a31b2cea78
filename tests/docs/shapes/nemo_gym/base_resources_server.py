"""What a resources server is made of."""

from tests.integrations.environment_calls import VerifyRequest as BaseVerifyRequest
from tests.integrations.environment_calls import VerifyResponse as BaseVerifyResponse

__all__ = ["BaseVerifyRequest", "BaseVerifyResponse", "SimpleResourcesServer"]


class SimpleResourcesServer:
    """A server whose `verify` answers."""
