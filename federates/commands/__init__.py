"""The commands of the command line: what each does once its words are read."""
