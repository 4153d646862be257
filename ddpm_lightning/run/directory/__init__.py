"""The run directory: what begins, records, resumes and forks a run."""
