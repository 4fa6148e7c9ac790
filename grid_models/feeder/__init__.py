"""The feeder as tables: buses, lines, transformers, loads, topology."""
