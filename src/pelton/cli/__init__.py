"""The command line, `pelton`."""
