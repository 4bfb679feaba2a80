"""Features of entities, answered from rows; knows no HTTP and no Redis."""
