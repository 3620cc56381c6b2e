"""Runs kept at GANSEG_RUNS_URI, beside the folder that is worked in."""
