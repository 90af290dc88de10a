"""A real server under load and under attack: small in the suite, at full counts by `make soak`."""
