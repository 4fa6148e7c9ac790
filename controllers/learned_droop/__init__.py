"""Local volt/var policy with trained curves: table file, controller, stability bound, gradient."""
