"""Experiments that the papers claim: many runs that differ in one thing, as a table with intervals."""
