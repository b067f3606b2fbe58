"""Using this package's kernels in models of other libraries, and a packing collator for them."""
