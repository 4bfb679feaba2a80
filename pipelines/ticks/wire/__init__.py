"""Messages in the formats of a schema registry: what they are in JSON, for both decoders."""
