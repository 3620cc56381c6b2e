"""Charts and pictures: each chart a function of numbers and labels, without knowledge of runs, reports or studies."""

from matplotlib.figure import Figure

__all__ = ["Figure"]
