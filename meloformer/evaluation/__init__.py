"""Figures for models and for music."""
