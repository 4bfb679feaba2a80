-- A transaction with its limits, in milliseconds. They are set in each, since a pool in transaction mode
-- gives each another session. What is read once a lock is held must be what its last holder has left,
-- whatever isolation the database or the account is set to.
BEGIN ISOLATION LEVEL READ COMMITTED;
SET LOCAL statement_timeout = %(statement)s;
SET LOCAL lock_timeout = %(lock)s;
SET LOCAL idle_in_transaction_session_timeout = %(idle)s
