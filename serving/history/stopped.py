"""What ends work on the past before its end."""

from __future__ import annotations


class Stopped(Exception):
    """It was stopped before its end."""
