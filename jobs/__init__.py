"""Batch work: a module here is a door that a schedule or a person starts, a package is a room that does the work."""
