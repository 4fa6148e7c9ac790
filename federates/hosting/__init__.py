"""Hosting capacity of a scenario's feeder: the study between the scenario and the methods."""
