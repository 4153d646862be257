"""Losses: how the errors of a denoiser at different noise levels are weighed against each other."""
