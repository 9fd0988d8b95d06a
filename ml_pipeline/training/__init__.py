"""What training itself said: its logs followed as they grow, and made into rows."""
