"""The metrics of `evaluate`, one file each."""
