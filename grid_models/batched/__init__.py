"""Many cases of one feeder at once: power flow at fixed taps in arrays."""
