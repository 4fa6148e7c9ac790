"""Running a scenario, and reading what a run left."""
