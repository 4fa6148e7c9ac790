"""Distributed optimisation: problems, algorithms as agents, and what they have in common."""
