"""What a worker runs on: machine code, columns, threads, patience with a store, memory."""
