"""Conditions: what is known of a clip becomes tensors for the network; one file per condition."""
