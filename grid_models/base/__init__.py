"""Errors, YAML with line numbers, CSV tables, random numbers."""
