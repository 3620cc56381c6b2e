"""The aggregator's end of the federation: what it lets in, how it weighs it, and the rounds."""
