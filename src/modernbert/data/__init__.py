"""Data: from documents to packed batches, in the order of the files below.

documents -> prepare -> shards -> mixture -> packing -> masking -> collate -> loader
"""
