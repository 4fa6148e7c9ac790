"""One federate and its surroundings: step, shell, wiring, links, recorded signals."""
