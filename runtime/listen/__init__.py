"""Audio that streams in: read while it comes, so that a question waits for its open end alone."""
