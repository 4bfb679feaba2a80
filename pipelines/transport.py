"""A Faust transport whose consumer delivers runs of records."""
