"""A synthetic cohort: real average anatomy, random tumours, and sites with different scanners."""
