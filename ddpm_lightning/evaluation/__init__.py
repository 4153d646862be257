"""Evaluation: what a trained denoiser is worth, measured the same way for every process and
schedule.
"""
