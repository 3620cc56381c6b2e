"""Checks before anything trains: every problem of a cohort, one finding a line, with its file and remedy."""
