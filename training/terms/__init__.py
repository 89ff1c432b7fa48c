"""The pieces that methods are made of: losses, thresholds, perturbations, and the exchange between two networks."""
