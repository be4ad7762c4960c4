"""The other end of the wire: what the commands ask a server, and how they read its answers."""
