"""What the server reads in the background: the catalog, and the heartbeats of the workers."""
