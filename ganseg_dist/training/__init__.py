"""From a training request to a finished run, in this process or on a cluster."""
