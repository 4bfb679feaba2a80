"""Measurements, always beside what they are compared with, in the same run."""
