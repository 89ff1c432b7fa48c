"""Precision is written in the graph: each file turns the FP32 graph into one of another precision."""
