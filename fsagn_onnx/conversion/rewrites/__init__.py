"""Graph rewrites before conversion: small named passes over a `Graph`, each with a postcondition."""
