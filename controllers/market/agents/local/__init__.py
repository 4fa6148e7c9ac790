"""The local market as agents: homes, secondary agents, operators of both markets."""
