"""Finished trainings as the rows of a results table, and their plots."""
