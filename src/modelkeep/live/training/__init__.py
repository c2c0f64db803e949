"""Checkpoints of a training: taken between two steps, kept in the background, and gone on from to the bit."""
