"""The product as its HTTP clients see it."""
