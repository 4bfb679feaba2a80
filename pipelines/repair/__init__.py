"""Repairs: ticks that live refused are let into history, as revisions of the rows that change."""
