"""Hosts: run the federates of an assembly in one thread, in threads, or in processes."""
