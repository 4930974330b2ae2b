"""One file per migration; never edit a migration that was released."""
