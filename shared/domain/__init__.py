"""Pure rules and values. Imports the standard library, Pydantic, tzdata and itself."""
