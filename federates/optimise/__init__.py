"""Comparison of distributed optimisation algorithms over imperfect links, in one loop."""
