"""HTTP: requests, problem documents, connections. It lives here and nowhere else."""
