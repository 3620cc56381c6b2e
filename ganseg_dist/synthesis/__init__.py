"""Synthetic images: made, compared with real ones, and audited for copies of training images."""
