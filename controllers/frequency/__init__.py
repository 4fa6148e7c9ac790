"""Frequency restored by loads: distributed proximal primal-dual control and its baselines."""
