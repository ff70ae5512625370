"""The dataset as WebDataset shards."""


rule shards:
    input:
        crops=rules.crop.output.manifest,
        plan=rules.degrade_plan.output.table,
        samples=SAMPLES,
        labels=rules.annotation_import.output.labels,
        annotations=rules.annotation_import.output.manifest,
    output:
        manifest=ROOT / "dataset/manifest.json",
    log:
        ROOT / "logs/shards.log",
    benchmark:
        ROOT / "benchmarks/shards.tsv"
    params:
        key=stage_key(stages.SHARDS, RUN),
        config=CONFIG_FILE,
    shell:
        "python -m shards write --config {params.config} --replace --log {log}"
