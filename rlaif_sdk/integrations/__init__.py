"""A composed reward inside other people's training stacks, one module a stack.

The modules import nothing of their stacks; each names what it relies on, and its tests run the stack's own code where
the package can be installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlaif_sdk.io.lazy_names import lazy_names

if TYPE_CHECKING:
    from rlaif_sdk.integrations.alarm_callback import AlarmCallback
    from rlaif_sdk.integrations.host import Host, load_state, save_state
    from rlaif_sdk.integrations.reward_server import RewardServer
    from rlaif_sdk.integrations.samples import Sample, Scored

__all__ = ["AlarmCallback", "Host", "RewardServer", "Sample", "Scored", "load_state", "save_state"]

if not TYPE_CHECKING:  # or a type checker would believe any name to be here
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "alarm_callback": ("AlarmCallback",),
            "host": ("Host", "load_state", "save_state"),
            "reward_server": ("RewardServer",),
            "samples": ("Sample", "Scored"),
        },
    )
