"""Studies of methods: many trainings with the same junior, steps and seeds, and their tables."""
