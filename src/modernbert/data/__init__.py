"""From documents to packed batches; the files follow the way of the data.

documents -> prepare -> shards -> mixture -> packing -> masking -> collate -> loader
"""
