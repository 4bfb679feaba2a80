"""The offline store: PostgreSQL."""
