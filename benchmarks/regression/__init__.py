"""Compares results: a regression gate for CI, and the results of several machines joined."""
