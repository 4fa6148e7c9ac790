"""The transmission federate: machines, frequency, and feeders at the buses of a system."""
