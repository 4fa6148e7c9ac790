"""Time profiles: irradiance, temperature, load and price."""
