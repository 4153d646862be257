"""Likelihood: how probable a denoiser finds clips, in nats and bits per value."""
