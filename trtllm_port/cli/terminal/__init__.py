"""What commands share: the only place that prints, options, and how results look."""
