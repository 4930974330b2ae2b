"""`python -m fraudctl`."""

from fraudctl.main import main

main(prog_name="fraudctl")
