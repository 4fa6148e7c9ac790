"""The feeders federate: one feeder in OpenDSS, and many like it solved in one batch."""
