"""The consumer market: homes plan their devices, and answer the prices of their operator."""
