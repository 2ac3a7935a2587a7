"""The engine: runs rules over parameters. It knows no optimizer; it is handed rules as values."""
