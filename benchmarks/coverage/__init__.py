"""The coverage zoo: what of the networks that people export converts, with parity at every tap (`make coverage`)."""
