"""Recorded samples under another policy, vote or clock: what the score would have been."""
