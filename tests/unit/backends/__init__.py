"""How engines are run and spoken to."""
