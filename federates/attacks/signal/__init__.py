"""Signal steps: values forged between their producer and their readers."""
