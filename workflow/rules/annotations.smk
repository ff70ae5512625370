"""People's votes, or simulated ones where the config asks for them, to labels."""

IS_SIMULATED = CONFIG.annotations.source == "simulate"
SAMPLES = expand(rules.enhancer_sample.output.manifest, shard=SHARDS)


rule annotation_simulate:
    input:
        crops=rules.crop.output.manifest,
        plan=rules.degrade_plan.output.table,
        samples=SAMPLES,
    output:
        manifest=ROOT / "annotations/simulated.manifest.json",
    params:
        key=stage_key(stages.SIMULATE, RUN),
        config=CONFIG_FILE,
    log:
        ROOT / "logs/annotation_simulate.log",
    benchmark:
        ROOT / "benchmarks/annotation_simulate.tsv"
    shell:
        "python -m annotation_import simulate --config {params.config} --replace --log {log}"


rule annotation_import:
    input:
        plan=rules.degrade_plan.output.table,
        votes=rules.annotation_simulate.output.manifest if IS_SIMULATED else [],
    output:
        labels=ROOT / "annotations/labels.parquet",
        report=ROOT / "annotations/report.json",
        manifest=ROOT / "annotations/manifest.json",
    params:
        key=stage_key(stages.IMPORT, RUN),
        config=CONFIG_FILE,
    log:
        ROOT / "logs/annotation_import.log",
    benchmark:
        ROOT / "benchmarks/annotation_import.tsv"
    shell:
        "python -m annotation_import import --config {params.config} --replace --log {log}"
