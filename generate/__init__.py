"""What is written from other files of this repository: `make generate` writes it, tests compare it."""
