"""Attacks: what an attack file does to a wired federation.

Four layers, one sub-package each: `signal`, `link`, `modbus`, `physical`. Each has in ``action.py``
the base of its actions, in ``layer.py`` the `federates.attacks.layer.AttackLayer` that finds the
targets of its steps. `interpose` puts the layers together.
"""
