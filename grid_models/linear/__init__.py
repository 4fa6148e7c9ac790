"""Linear power flow: LinDistFlow, tangent model, Kron reduction."""
