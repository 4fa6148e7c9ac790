"""Electromagnetic dynamics of lines and buses at milliseconds."""
