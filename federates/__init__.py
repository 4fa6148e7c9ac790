"""The HELICS side: ports, mail, federates, scenarios, hosts, run store, report, command line."""
