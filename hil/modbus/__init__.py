"""Modbus/TCP: client, frames, TLS, captures."""
