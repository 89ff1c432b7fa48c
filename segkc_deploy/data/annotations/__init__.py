"""Annotation files of labeling tools, each read into shapes that one rasterizer paints into masks of class ids.

To add a format: a file here with a reader that returns `AnnotatedImage`s, and a line in `reading.py` that knows it.
"""
