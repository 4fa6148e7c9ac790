"""Physical steps: elements of a plant disconnected, switched or loaded."""
