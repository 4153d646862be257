"""python study.py: arms that differ in their density over log-SNR, trained, sampled, compared."""
