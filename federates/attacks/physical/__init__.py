"""Attack steps of layer physical."""
