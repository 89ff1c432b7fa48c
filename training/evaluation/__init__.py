"""Masks and scores of PyTorch networks by the protocol of a recipe."""
