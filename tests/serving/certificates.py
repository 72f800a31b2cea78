"""A certificate of this machine's own, for servers on the loopback address."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest


def make_certificate(folder: Path) -> ssl.SSLContext:
    """Write ``cert.pem`` and ``key.pem``, and return what trusts them."""
    command = [
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "cert.pem"),
        *("-days", "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
    ]
    if subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode:
        pytest.skip("openssl makes no certificate here")
    return ssl.create_default_context(cafile=str(folder / "cert.pem"))
