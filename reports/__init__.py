"""From run directories to tables. Knows the files of a run by their schema only, not the code that wrote them."""
