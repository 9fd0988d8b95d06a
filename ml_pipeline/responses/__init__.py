"""Files of responses that somebody else's program made: found, read, scored and judged like the pipeline's own."""
