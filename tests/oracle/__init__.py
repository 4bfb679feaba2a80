"""What the pipeline must make of raw Kafka records, worked out independently.

Nothing here imports the product: messages are read with `json`, times with `datetime`, arithmetic
is exact (`fractions`) or carried out to fifty digits (`mpmath`). It is slow and obvious.
"""
