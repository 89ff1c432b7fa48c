"""The files that training writes and reads: run directory, checkpoint, network files, weights from elsewhere."""
