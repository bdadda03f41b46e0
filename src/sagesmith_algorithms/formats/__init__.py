"""Readers and writers of the data formats that SageMaker's algorithms take and give."""
