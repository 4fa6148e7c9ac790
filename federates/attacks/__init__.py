"""Attacks: what an attack file says, and how it is wired into a federation unaware of it."""
