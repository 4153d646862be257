"""Jobs of a sweep, whatever launcher and sweeper run them, and their table."""
