"""The workshop: data sets, networks, methods and the co-training loop."""
