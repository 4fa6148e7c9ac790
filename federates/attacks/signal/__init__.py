"""Attack steps of layer signal."""
