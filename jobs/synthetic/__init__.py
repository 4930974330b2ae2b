"""Synthetic transactions and the statistics that they are drawn from."""
