"""Attack steps of layer modbus."""
