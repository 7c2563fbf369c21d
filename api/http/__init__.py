"""What every route stands on. Imports no route."""
