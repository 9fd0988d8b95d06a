"""What the original left: its scores, imported beside those that this program measures, and its training data."""
