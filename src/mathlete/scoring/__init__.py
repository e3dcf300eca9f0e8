"""Samples graded, scores with their intervals, runs compared pairwise."""
