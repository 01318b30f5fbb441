"""Faces in a video: detection, tracking with ids, dense landmarks, shot cuts."""
