"""Writes the files that derive from other files of this repository: `make generate` runs it, tests compare."""
