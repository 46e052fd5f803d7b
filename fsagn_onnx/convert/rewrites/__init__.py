"""Graph rewrites before conversion: small named passes over one mutable `Graph`, each with a postcondition."""
