"""`python -m tickwell`"""

from tickwell.cli import main

main()
