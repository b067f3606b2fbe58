"""Triton kernels of our own, where the compiler's were measured to be short; all half precision.

A kernel is an operator of torch's, with its gradients, so that compiled layers call it as it is.
The modules beside `support` import Triton and are imported only where that is ready.
"""
