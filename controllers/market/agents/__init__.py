"""The market as agents: operator, SMOs, resilience manager, atoms of PAC."""
