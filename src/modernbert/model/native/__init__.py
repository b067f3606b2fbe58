"""C kernels for CPUs with AVX-512: attention, and the whole encoder.

They are compiled on their first use by the machine's own C compiler, in a second or two, and kept.
Without a compiler, or on another CPU, the torch kernels beside this folder do the same work.
"""
