"""A composer behind HTTP: `create_app` makes the application, `serve` runs it.

The routes speak a protocol of the SDK's own and those of OpenRLHF, verl and slime; see `rlaif_sdk.serving.app`.
"""

from __future__ import annotations

from rlaif_sdk.exceptions import needs_extra

with needs_extra("serve", "the reward server"):
    import fastapi  # noqa: F401 - the message is better here than from deep inside
    import prometheus_client  # noqa: F401
    import uvicorn  # noqa: F401

from rlaif_sdk.serving.app import create_app
from rlaif_sdk.serving.server import serve
from rlaif_sdk.serving.settings import ServeSettings

__all__ = ["ServeSettings", "create_app", "serve"]
