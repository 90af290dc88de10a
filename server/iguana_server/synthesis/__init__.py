"""What generators and translators have in common: frozen networks that map rows to pictures."""
