"""The secondary market: each operator schedules and pays its agents, all operators in one batch."""
