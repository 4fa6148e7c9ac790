"""Real-time optimal power flow by feedback: areas of PV and batteries, prices by mail."""
