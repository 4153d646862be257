"""Objectives: what the network is asked to predict."""
