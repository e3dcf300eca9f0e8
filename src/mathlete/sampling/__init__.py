"""Engines that turn a prompt into samples."""
