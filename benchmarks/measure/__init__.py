"""What is measured of one row: latency, throughput, memory, energy, the machine's state and its peaks."""
