"""Who runs a command, for what is written down of it."""

from __future__ import annotations

import getpass
import os


def current_user() -> str:
    """The name of the user, or its number where it has no name, as in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.geteuid()}"
