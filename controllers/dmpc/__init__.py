"""Distributed model-predictive control, of circuits and of feeders."""
