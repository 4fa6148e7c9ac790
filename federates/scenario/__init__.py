"""Scenario and attack files: schema, checks, and error messages with line numbers."""
