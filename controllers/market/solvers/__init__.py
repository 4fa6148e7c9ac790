"""Algorithms that clear the market: central, PAC, NST-PAC, ADMM."""
