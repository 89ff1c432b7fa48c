"""One backend, one file, behind the interface of `base.Runner`."""
