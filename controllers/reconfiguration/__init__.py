"""Reconfiguration of a feeder by its switches: restoration of load after a fault, least losses."""
