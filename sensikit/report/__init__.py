"""One self-contained page from run and evaluation directories, and the tables in it."""
