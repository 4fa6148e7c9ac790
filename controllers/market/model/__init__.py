"""What is cleared, at which prices, and who pays whom."""
