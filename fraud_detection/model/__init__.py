"""The model directory: immutable versions, the link to the current one, and the journal of promotions."""
