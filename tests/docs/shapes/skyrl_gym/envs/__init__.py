"""The environments that are known by name."""

REGISTERED = {}


def register(id, entry_point):  # noqa: A002 - as SkyRL names it
    """Know an environment's class by a name."""
    REGISTERED[id] = entry_point
