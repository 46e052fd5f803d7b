"""Networks and pictures whose truth is known: for tests, benchmarks and the tutorial."""
