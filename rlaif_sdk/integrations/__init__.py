"""A composer inside other people's trainers: one thin module a stack, which imports nothing of it."""
