"""What the features are: definitions, versions, row schemas and how rows are stored."""
