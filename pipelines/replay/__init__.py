"""Replay: the same computation over a bounded range of the log, into Postgres."""
