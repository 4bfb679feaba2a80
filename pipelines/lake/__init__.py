"""The lake: rows of Postgres as Parquet files, one a source, row schema and day."""
