"""Sharing networks: model cards, and packages of files that a hub keeps."""
