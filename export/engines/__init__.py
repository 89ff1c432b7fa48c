"""One engine, one file: from the junior's graph to the file that runs on the device."""
