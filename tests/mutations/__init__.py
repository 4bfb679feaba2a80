"""Evidence that tests can fail: deliberate mistakes, and the test that catches each.

`python -m tests.mutations` makes the mistakes of `mutations.toml` one at a time in a copy of the
repository, runs the tests that should catch them, and writes `docs/mutations.md`.
"""
