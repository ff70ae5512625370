"""Ground floor of the pipeline: what every stage needs and no stage owns.

Errors, keyed seeds, typed settings, atomic files, tables, tar shards, image
coding, the stage contract, progress, GPU leases. Imports no stage.
"""
