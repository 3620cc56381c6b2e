"""Checks of every number that conclusions rest on against independent packages: see docs/verification.md."""
