"""Benchmarks that measure two ways of doing the same work in turn, in one run, and report the ratio."""
