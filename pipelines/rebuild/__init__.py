"""Rebuild: what Redis lost, restored from Postgres."""
