"""Backups, restores, deletion and checks of an installation."""
