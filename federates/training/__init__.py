"""Training of local policies: days, closed loops in the batched power flow, the shift table."""
