"""Environments for learning: a scenario's feeder as Gymnasium and PettingZoo know it."""
