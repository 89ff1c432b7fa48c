"""Settings of the whole test suite."""

import os

# Tiny networks gain nothing from threads, and on a busy machine threads that wait for each other cost minutes.
# Set before torch and OpenMP are loaded; processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
