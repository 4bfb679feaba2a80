"""A worker process: Faust with a transport of our own, bringing ticks into one store."""
