"""From a trained junior to an artifact that is proven to agree with it."""
