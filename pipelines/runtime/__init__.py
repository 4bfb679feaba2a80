"""What every part of a worker runs on: machine code, threads, patience with a store, memory."""
