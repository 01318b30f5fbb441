"""The table of footage cases: what real film throws at the engine, one checked row each."""
