"""Whether transactions have changed since the model was trained."""
