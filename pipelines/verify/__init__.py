"""Verification: stored values against what the kernel computes of the stored ticks."""
