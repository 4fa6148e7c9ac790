"""The federate kinds, one per file."""
