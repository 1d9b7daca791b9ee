"""Scores to look at and to hear: piano rolls, pages that play, sound, and MIDI ports."""
