"""Emulated devices: physics without sockets, registers, and the process that serves them."""
