"""Channels, neurons, heads and widths that are really removed."""
