"""What a run tells the world: MLflow, and a progress bar for the person who waits."""

import os

# MLflow decides on import whether it reports its own use to its makers.
os.environ.setdefault("DO_NOT_TRACK", "true")
