"""Interleaved timing: rows and baselines run in alternation (A/B/A/B), each in a process of its own."""
