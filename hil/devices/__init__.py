"""Device files, points, register codec and SunSpec models."""
