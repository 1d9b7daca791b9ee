"""Figures and faults, measured by commands that anyone can repeat."""
