"""A command line and conf/: composed, checked, and what is wrong with it in a few lines."""
