"""What is kept on disk between runs of a benchmark: finished rows, timings, peaks and masks."""
