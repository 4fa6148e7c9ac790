"""Modbus/TCP servers: framing, function codes, TLS roles and faults on request. No numpy.

Why it is not pymodbus' server: see "The server" in docs/emulators.md. A Raspberry Pi needs the
standard library only.
"""
