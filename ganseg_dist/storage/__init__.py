"""Copies of runs at GANSEG_RUNS_URI, beside the working folder."""
