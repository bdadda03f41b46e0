"""What the operations mean: one package per AWS service, named as botocore names it."""
