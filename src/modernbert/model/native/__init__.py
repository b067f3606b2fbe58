"""C kernels for CPUs: attention, GeGLU, and the whole encoder.

A wheel carries them compiled, once for each kind of CPU; an editable install compiles them. Without
them, or on another CPU, the torch kernels beside this folder do the same work.
"""
