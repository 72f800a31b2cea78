"""What people see of a run: estimates with their error, tables, plots, progress."""
