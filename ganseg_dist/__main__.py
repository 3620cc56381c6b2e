"""`python -m ganseg_dist`: the same as `ganseg`, for `ray job submit`."""

from ganseg_dist.cli.main import main

main()
