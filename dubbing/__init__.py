"""Persona Dub."""
