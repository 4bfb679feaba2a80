"""One module a step, its SQL beside it."""
