"""Names and limits on which the API, the jobs and their clients must agree."""

AMOUNT_SCALING = "amount_scaling"
"""The key in schema_meta of how amounts are scaled, which the first import of a plain Amount fixes."""
