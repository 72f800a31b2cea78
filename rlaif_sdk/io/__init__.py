"""Tables, small files, job folders and stores: one way to read and write each."""
