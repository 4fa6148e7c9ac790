"""What distributed controllers are compared with: none, local droop, optimum, averaging PI."""
