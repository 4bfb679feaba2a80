-- A transaction with its limits, in milliseconds. They are set in each, since a pool in transaction mode
-- gives each another session.
BEGIN;
SET LOCAL statement_timeout = %(statement)s;
SET LOCAL lock_timeout = %(lock)s;
SET LOCAL idle_in_transaction_session_timeout = %(idle)s
