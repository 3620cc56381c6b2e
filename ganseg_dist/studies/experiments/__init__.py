"""Experiments on the papers' claims: many runs that differ in one setting, as a table with intervals."""
