"""Feature extractors: what a measure sees of clips, always a pair, spatial and temporal."""
