"""From a version that passed the gate to one that serves."""
