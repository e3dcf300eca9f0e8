"""The project's own decode loop on transformers models."""
