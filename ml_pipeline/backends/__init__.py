"""Models that answer: the interface they share, the backends themselves, and the completion cache."""
