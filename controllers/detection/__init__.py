"""Detection: what an operator's screen could notice, from the measurements that reach it."""
