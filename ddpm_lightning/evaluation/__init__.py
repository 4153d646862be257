"""Evaluation: what a trained denoiser is worth, measured alike for every process and schedule."""
