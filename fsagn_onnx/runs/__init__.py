"""What commands that fill a folder share: the folder, names of files, columns, and the pass that they look with."""
