"""Feeders, power-flow models, distributed energy resources and profiles. No HELICS, no sockets.

Sign convention (everywhere in Feederate): injections are positive, ``p = p_gen - p_load``.
"""
