"""How good a model is, and whether a new one may replace the current one."""
