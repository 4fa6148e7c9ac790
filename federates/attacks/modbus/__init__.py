"""Modbus steps: registers and frames changed between adapter and device."""
