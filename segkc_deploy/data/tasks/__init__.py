"""Tasks for labeling tools: images with predicted masks, which a person corrects instead of starting from nothing.

To add a tool: a file here with a `TaskWriter`, and a line in `writers.py`.
"""
