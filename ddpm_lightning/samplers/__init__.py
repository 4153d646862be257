"""Samplers: walks from the prior to data along a grid of steps."""
