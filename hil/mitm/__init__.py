"""A man in the middle between an adapter and a device."""
