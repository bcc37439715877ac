"""Distilling a student under an agent: its configuration, its training, and the judging of what it became."""
