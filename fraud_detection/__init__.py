"""What the API and the jobs would break each other by disagreeing about, and nothing else.

Nothing in here serves HTTP, trains a model, reports metrics or reads a pickle; `make lint` proves it.
"""

VERSION = "0.1.0"
