"""Files that appear whole or not at all. The lowest layer: nothing here knows what they are for."""
