"""Networks of both stages: pure tensors, no files."""
