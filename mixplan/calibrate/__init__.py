"""Trains the ladder and measures it: calibration.yaml in, measurements/ out."""
