"""What `inspect` gathers about a file. No torch until a conversion is tried."""
