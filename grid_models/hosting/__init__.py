"""Hosting capacity: how much generation, storage and flexible demand a feeder can take."""
