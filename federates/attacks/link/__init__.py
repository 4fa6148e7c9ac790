"""Attack steps of layer link."""
