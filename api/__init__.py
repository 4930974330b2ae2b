"""The scoring service: answers transactions over HTTP and remembers every decision."""
