"""One command line for people; a command is a few lines over the module that does the work."""
