"""Ticks to feature rows: entities, their windows, and the kernel over both."""
