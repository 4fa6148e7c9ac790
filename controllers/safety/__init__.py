"""Safety layer: set-points of any controller, changed as little as keeps the voltage band."""
