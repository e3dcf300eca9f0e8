"""The submit command: build the notebook of a competition, rehearse it, check it and push it."""
