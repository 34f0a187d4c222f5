"""Evaluation of a run or of any model's label PNGs: what is scored, how it is counted, what comes out.

`truth` and `predictions` are the two sides, `matching` pairs their files, `counting` counts the pairs in parallel, `scoring`
makes an `EvalResult` of the counts, and `comparison` holds two of these against each other.
"""
