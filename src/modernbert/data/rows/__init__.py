"""The one reader of rows: files of every format, and objects of Python, as named values.

A corpus, labelled data and the inputs of inference are all read here; what they do with a row that
cannot be read is their policy (see `data.records.RecordRules`).
"""
