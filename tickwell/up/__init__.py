"""`tickwell up`: what it starts, keeps running, shows and stops."""
