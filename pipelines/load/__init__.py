"""Loads: ticks of files into history, decided and computed as live does it, without Kafka."""
