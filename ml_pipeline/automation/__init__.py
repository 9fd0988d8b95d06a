"""What starts runs: partitions, sensors and jobs."""
