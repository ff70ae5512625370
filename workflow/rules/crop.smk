"""Photographs to crops."""


rule crop:
    output:
        table=ROOT / "crops/crops.parquet",
        manifest=ROOT / "crops/manifest.json",
    params:
        key=stage_key(stages.CROP, RUN),
        config=CONFIG_FILE,
    threads: CORES
    log:
        ROOT / "logs/crop.log",
    benchmark:
        ROOT / "benchmarks/crop.tsv"
    shell:
        "python -m crop run --config {params.config} --replace --log {log}"
