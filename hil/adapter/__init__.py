"""The Modbus/TCP adapter: reading, guarded writing, watchdog."""
