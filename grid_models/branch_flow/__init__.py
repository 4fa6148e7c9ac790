"""The balanced branch-flow (DistFlow) model of a feeder."""
