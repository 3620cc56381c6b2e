"""A synthetic cohort, made on the spot: real average anatomy, drawn tumours, and sites that differ."""

from ganseg_dist.data.phantom.folder import make_phantom

__all__ = ["make_phantom"]
