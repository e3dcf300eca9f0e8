"""Evaluation: frozen suites of problems, and the command that runs a model on them."""
