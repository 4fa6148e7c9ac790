"""Hardware in the loop: device files, Modbus/TCP adapter, safety guard, emulators. No HELICS."""
