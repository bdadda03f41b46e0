"""The benchmarks, one module for each algorithm; every module here that has an `ENTRY` is run."""
