"""Backfill: a version's values of ticks that Postgres has without it, computed of their fields."""
