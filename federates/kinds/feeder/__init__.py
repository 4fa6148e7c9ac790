"""The feeder federate: an OpenDSS power flow per step."""
