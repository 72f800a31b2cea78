"""Which addresses other machines reach."""

from __future__ import annotations

import pytest

from rlaif_sdk.io.addresses import is_loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_this_machines_own_addresses_are_loopback(host: str) -> None:
    """All of 127.0.0.0/8, in both families, and the name."""
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.4", "example.org", "127.0.0.1.example.org", ""])
def test_what_others_may_reach_is_not(host: str) -> None:
    """A name that only looks like one is somebody else's."""
    assert not is_loopback(host)
