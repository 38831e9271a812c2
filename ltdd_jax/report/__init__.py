"""The report of a run as a page, as text and as a picture; knows numbers and pictures, no files."""
