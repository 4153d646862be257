"""From a list of URLs to clips on disk: fetch, check, decode, and account for every URL."""
