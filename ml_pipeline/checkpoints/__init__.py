"""What a checkpoint is, where it lives, and how it comes here."""
