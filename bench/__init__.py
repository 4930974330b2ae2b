"""How fast the service is, beside the naive application and an empty route on the same machine: `make bench`."""
