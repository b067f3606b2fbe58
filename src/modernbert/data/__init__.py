"""Data: from documents to packed batches; the files follow the data.

documents -> prepare -> shards -> mixture -> packing -> masking -> collate -> loader
"""
