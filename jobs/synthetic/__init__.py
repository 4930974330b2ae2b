"""Made-up transactions and the statistics that they are drawn from."""
