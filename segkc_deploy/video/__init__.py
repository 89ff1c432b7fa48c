"""Predict videos, streams and cameras: decoding, network and encoding at the same time."""
