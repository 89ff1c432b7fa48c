"""The data set that the demo draws."""
