"""What delivery costs, beside what one would write without it: `make bench`."""
