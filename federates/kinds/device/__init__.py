"""The device federate: simulated, emulated and real devices."""
