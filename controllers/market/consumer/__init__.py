"""Consumer market: homes plan their devices, a market operator sets them prices, they respond."""
