"""Photographs to crops."""


rule crop:
    output:
        table=ROOT / "crops/crops.parquet",
        manifest=ROOT / "crops/manifest.json",
    log:
        ROOT / "logs/crop.log",
    benchmark:
        ROOT / "benchmarks/crop.tsv"
    threads: CORES
    params:
        key=stage_key(stages.CROP, RUN),
        photographs=photographs_digest(CONFIG),
        config=CONFIG_FILE,
    shell:
        "python -m crop run --config {params.config} --replace --log {log}"
