"""Training: the pipeline from problems with traces to an 8-bit model, and the presets of the models it is for."""
