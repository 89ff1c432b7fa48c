"""Rows and baselines timed in turn, A/B/A/B, each in a process of its own."""
