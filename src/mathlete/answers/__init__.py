"""Answers read out of model text, and when two of them are the same."""
