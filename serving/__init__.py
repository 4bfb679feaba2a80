"""Features out: HTTP routes over online reads."""
