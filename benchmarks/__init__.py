"""What an artifact costs and what it gives: mIoU, latency, parameters, memory, on one page."""
