"""Ratios measured side by side: ours and another way of doing the same work, in turn, in one run."""
