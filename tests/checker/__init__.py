"""Proves the guarantees of a finished run from what is stored, and nothing else.

It reads the raw topics, Postgres and Redis as any client does, works out with `tests.oracle` what
must be there, and names every difference. It imports nothing of the product: the formats that it
reads are written down here a second time.

    python -m tests.checker --kafka 127.0.0.1:9092 --redis redis://… --postgres postgresql://…
"""
