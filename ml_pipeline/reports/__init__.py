"""Comparison of checkpoints, and the tables, plots and HTML page that show it. Pure: frames in, frames and text out."""
