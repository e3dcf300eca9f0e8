"""From an adapter to a model that can be served: merge, 8-bit export, and what each step cost."""
