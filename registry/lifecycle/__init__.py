"""What happens to definitions: how they are recorded."""
