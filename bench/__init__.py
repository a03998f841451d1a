"""The benchmark: a neutral engine, a load generator, the gateway, its peers, and one table."""
