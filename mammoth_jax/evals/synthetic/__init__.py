"""The small world as a benchmark: what is asked, how it is scored, and what stands beside every score."""
