"""`python -m mixplan` is the `mixplan` command."""

from mixplan.cli import main

main()
