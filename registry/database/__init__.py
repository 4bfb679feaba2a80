"""The registry's and the rows' tables in Postgres: engine, views, partitions, migrations."""
