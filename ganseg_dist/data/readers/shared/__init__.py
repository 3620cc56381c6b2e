"""What readers of layouts share."""
