"""What every controller shares: protocol, ports, mail, agents, options, compliance test."""
