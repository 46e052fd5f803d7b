"""Images, annotations and the sets with known truth: planted patterns and synthetic parts."""
