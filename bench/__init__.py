"""Benchmarks: `make bench` measures Sagesmith and its peers side by side in one run and prints ratios."""
