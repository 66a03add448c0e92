"""The run directory: tensors and tables, written whole or not at all, and checked when they are read."""
