"""The submit command: what a competition asks for, and (with the kernel room) the notebook that answers it."""
