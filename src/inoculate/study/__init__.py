"""A study: every defense on every attacked model, one stored trial each, and what they say."""
