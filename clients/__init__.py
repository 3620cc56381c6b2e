"""The hospital's end of the federation."""
