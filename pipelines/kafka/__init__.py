"""Kafka without objects a record: runs from record batches, topics, offsets, and the producer."""
