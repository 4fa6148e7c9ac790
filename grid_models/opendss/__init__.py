"""OpenDSS circuits: built from a feeder or from a user's master file, solved in arrays."""
