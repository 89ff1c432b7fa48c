"""The machine's peaks and each row's roofline bound."""
