"""What is stored, written in forms that other programs read: Parquet and CSV, lm-evaluation-harness, Inspect."""
