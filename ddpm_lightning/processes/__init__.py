"""Forward processes: Gaussian chains from data (t = 0) to the prior (t = T)."""
