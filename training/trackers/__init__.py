"""Where the values of a training can be watched, besides its own log."""
