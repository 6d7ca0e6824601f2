"""Drop-in modules for the code bases that people have."""
