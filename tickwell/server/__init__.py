"""`tickwell serve`: the server in one process, or in several on one port."""
