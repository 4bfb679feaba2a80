"""The two stores: rows, window states and watermarks, each written atomically."""
