"""What holds for the whole house: walls, words, pages, packaging; and that fakes and benchmark are honest."""
