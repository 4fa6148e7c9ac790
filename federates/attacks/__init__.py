"""Attacks: what an attack file says, and how it is wired into a federation that does not know it."""
