"""The primary market: bids cleared over a feeder's branch-flow model, centrally or by agents."""
