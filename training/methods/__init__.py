"""Training methods: one file each; `segkc` is the product's own."""
