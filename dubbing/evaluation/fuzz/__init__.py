"""Fuzzing: damaged media, personas and checkpoints through the engine's own entry points."""
