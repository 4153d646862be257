"""Where GIFs come from: one file per source, all under the contract in base."""
