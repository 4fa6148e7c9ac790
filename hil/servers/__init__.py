"""Modbus/TCP servers: framing, function codes, TLS roles and faults on request. No numpy.

Why not pymodbus' server: of several requests in one segment it answers the first only, and it
answers an unknown function code with function byte 0x80 instead of ``fc | 0x80`` (measured with
3.16.1). Both are seen in the field as faults of a device, so an emulator must not show them. What
is left of a server, once these are replaced, is smaller than the subclass would be, and a
Raspberry Pi then needs the standard library only.
"""
