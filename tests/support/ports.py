"""Find ports of 127.0.0.1 for servers that take their port from a variable."""

import random
import socket

_NEVER_EPHEMERAL = range(10_000, 32_768)
"""Below the ports that Linux gives to outgoing connections: none of those takes a port between look and start."""


def free_port() -> str:
    """Return a port that no process listens on."""
    while True:
        port = random.SystemRandom().choice(_NEVER_EPHEMERAL)  # several processes look at once
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return str(port)
