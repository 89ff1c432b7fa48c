"""Backbones, decoders and the networks made of them."""
