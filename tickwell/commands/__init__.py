"""One module a command; `tickwell.cli` names them."""
