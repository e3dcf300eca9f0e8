"""Engines that serve: OpenAI-compatible servers, vLLM in this process, workers of a Ray cluster."""
