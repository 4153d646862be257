"""Tests of ddpm_lightning.data.ingest."""
