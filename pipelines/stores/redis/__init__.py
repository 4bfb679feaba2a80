"""The online store: Redis, single or a cluster."""
