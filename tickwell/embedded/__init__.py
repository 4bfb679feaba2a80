"""The services that `tickwell up` starts where no URL names one, all on 127.0.0.1."""
