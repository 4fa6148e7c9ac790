"""The live page of a run: a process that reads the run's folder while the run goes on."""
