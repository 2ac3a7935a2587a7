"""What a race is shown as: sentences, a table for the terminal, charts and a page."""
