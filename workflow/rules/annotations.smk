"""People's votes, or simulated ones where the config asks for them, to labels."""

IS_SIMULATED = CONFIG.annotations.source == "simulate"
VOTES = Path(
    CONFIG.annotations.source
)  # a changed archive or table is seen; a folder is not
SAMPLES = expand(rules.enhancer_sample.output.manifest, shard=SHARDS)


rule until_votes:
    """Target: everything up to the images that people are asked about."""
    input:
        SAMPLES,


rule annotation_simulate:
    input:
        crops=rules.crop.output.manifest,
        plan=rules.degrade_plan.output.table,
        samples=SAMPLES,
    output:
        manifest=ROOT / "annotations/simulated.manifest.json",
    log:
        ROOT / "logs/annotation_simulate.log",
    benchmark:
        ROOT / "benchmarks/annotation_simulate.tsv"
    params:
        key=stage_key(stages.SIMULATE, RUN),
        config=CONFIG_FILE,
    shell:
        "python -m annotation_import simulate --config {params.config} --replace --log {log}"


rule annotation_import:
    input:
        plan=rules.degrade_plan.output.table,
        votes=(
            rules.annotation_simulate.output.manifest
            if IS_SIMULATED
            else [VOTES] * VOTES.is_file()
        ),
    output:
        labels=ROOT / "annotations/labels.parquet",
        report=ROOT / "annotations/report.json",
        manifest=ROOT / "annotations/manifest.json",
    log:
        ROOT / "logs/annotation_import.log",
    benchmark:
        ROOT / "benchmarks/annotation_import.tsv"
    params:
        key=stage_key(stages.IMPORT, RUN),
        config=CONFIG_FILE,
    shell:
        "python -m annotation_import import --config {params.config} --replace --log {log}"
