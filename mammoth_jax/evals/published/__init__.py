"""Published benchmarks: from each one's own prompt file to the files that its own scorer reads."""
