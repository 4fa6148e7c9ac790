"""From a scenario to wired federates."""
