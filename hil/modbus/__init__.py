"""Modbus over TCP, RTU over TCP and serial lines: client, frames, TLS, captures."""
