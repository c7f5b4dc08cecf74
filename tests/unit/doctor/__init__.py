"""Of `app/doctor`."""
