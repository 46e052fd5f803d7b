"""Past one machine: lists of pictures cut into units, workers that write a part for each, Ray that runs them."""
