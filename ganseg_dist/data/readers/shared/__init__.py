"""Code that the readers of layouts share."""
