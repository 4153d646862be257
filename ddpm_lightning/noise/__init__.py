"""Noise schedules: beta_1 .. beta_T of a discrete diffusion chain."""
