"""Distributed algorithms, one per file; `catalog` names them."""
