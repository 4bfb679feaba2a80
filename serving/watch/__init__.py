"""What the server follows in the background: the catalog, and how the workers are."""
