"""Models of other libraries on this package's kernels; a packing collator."""
