"""A synthetic cohort: real average anatomy, random tumours, and sites with different scanners."""

from ganseg_dist.data.phantom.folder import make_phantom

__all__ = ["make_phantom"]
