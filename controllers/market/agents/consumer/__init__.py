"""The consumer market as agents: an operator, the aggregators of its homes, and their mail."""
