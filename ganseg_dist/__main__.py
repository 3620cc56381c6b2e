"""`python -m ganseg_dist`: the same as `ganseg`, for `ray job submit`."""

import sys

from ganseg_dist.cli.main import main
from ganseg_dist.cli.submit import SUBMITTED
from ganseg_dist.errors import ConfigError
from ganseg_dist.runners.ray_jobs import refuse_lost_runs
from ganseg_dist.runs import runs_root

if sys.argv[1:2] and sys.argv[1] in SUBMITTED:
    try:
        refuse_lost_runs(runs_root())
    except ConfigError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
main()
