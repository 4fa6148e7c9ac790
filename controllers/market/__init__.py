"""The primary market: one feeder's bids cleared over its branch-flow model, centrally or by agents."""
