"""What processes must agree on to the byte: rows, keys, heartbeats, statuses."""
