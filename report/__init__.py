"""One page that shows what a run built: `python -m report write`, and a gallery picture.

Reads what the other stages wrote and tolerates what is not there yet; nothing reads the
report.
"""
