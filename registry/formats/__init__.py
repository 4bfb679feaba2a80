"""Formats that processes share, to the byte: rows, states, keys, heartbeats, statuses."""
