"""One module a question; each returns `Figure`s whose headings are findings computed from the data."""
