"""Batch work: nouns compute and are pure, verbs read, call nouns, write, and are run by schedule."""
