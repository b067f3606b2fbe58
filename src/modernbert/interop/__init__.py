"""Models of other libraries on our kernels, and packed batches for their trainers."""
