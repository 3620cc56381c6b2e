"""Layout readers: each turns a folder (or a manifest) into cases. A new layout is one file here and one test."""
