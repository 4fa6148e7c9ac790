"""Runs as pages and tables: one run, several side by side, an attack and its defences."""
