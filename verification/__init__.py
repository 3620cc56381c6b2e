"""Checks of every number that a conclusion rests on, against packages written by others: see docs/verification.md."""
