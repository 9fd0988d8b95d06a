"""Tells people of failed checks: what waits to be told, and the webhook that it is posted to."""
