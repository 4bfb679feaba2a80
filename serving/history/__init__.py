"""History: what features were at moments of the past, read from Postgres."""
