"""The report of trainings: their curves, and their scores over seeds."""
