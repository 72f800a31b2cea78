"""A composed reward inside other people's training stacks, one module a stack.

The modules import nothing of their stacks; each names what it relies on, and its tests run the stack's own code where
the package can be installed.
"""

from rlaif_sdk.integrations.host import Host, load_state, save_state
from rlaif_sdk.integrations.samples import Sample, Scored

__all__ = ["Host", "Sample", "Scored", "load_state", "save_state"]
