"""Files that people bring in and take out, and the client of the API that some of them go through."""
