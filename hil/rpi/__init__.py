"""The thermostat agent on a Raspberry Pi: relay, 1-wire sensor, the same registers as emulated.

Needs the standard library and gpiozero only; numpy, OpenDSS, cvxpy and HELICS are not imported.
"""
