"""Ticks from files: rows and cells to the messages that a producer would send."""
