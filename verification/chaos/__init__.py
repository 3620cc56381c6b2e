"""Kills, full disks and cut links at random moments, after which each result must be that of an undisturbed run."""
