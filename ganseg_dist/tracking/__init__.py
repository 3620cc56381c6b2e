"""Where a run reports its progress: MLflow, and a progress bar on the terminal."""

import os

# MLflow decides on import whether it reports its own use to its makers.
os.environ.setdefault("DO_NOT_TRACK", "true")
