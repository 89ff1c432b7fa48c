"""`segkc-deploy pseudo-label`: a run's network labels images, and pixels that it is not sure of are ignored."""
