"""The one solve loop: sample, read, vote."""
