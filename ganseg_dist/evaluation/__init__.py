"""How well models do on patients: scores, operating points, and what is scored side by side."""
