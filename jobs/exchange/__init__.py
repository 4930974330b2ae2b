"""Imports and exports of files, and the API client that some of them use."""
