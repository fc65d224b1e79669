"""`runner.py bench`: time models and runtimes against each other."""
