"""Transmission systems: power flow, machines and their controls, frequency."""
