"""One rule per op: how its gradient is written."""
