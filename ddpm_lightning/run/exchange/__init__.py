"""Denoisers from and for elsewhere: exports, diffusers' pipelines, the Hub."""
