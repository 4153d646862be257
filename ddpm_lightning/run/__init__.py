"""Commands: a composed configuration -> objects -> a run. The only code that knows Hydra."""
