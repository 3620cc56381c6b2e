"""Writes a finished or unfinished run as one self-contained HTML page."""
