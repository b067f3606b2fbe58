"""Triton kernels: attention within a window, GeGLU, cross entropy.

A kernel is an operator of torch's, with its gradients, so that compiled layers call it as it is.
The modules beside `support` import Triton and are imported only where that is ready.
"""
