"""Batch work: a schedule or a person starts a module here; the packages do the work."""
