"""Joins with days of history, from the lake's files and from Postgres."""
