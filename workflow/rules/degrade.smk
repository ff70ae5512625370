"""The plan, and the degraded inputs, one shard at a time."""


rule degrade_plan:
    input:
        rules.crop.output.table,
    output:
        table=ROOT / "plan.parquet",
        manifest=ROOT / "plan.manifest.json",
    log:
        ROOT / "logs/degrade_plan.log",
    benchmark:
        ROOT / "benchmarks/degrade_plan.tsv"
    params:
        key=stage_key(stages.PLAN, RUN),
        config=CONFIG_FILE,
    shell:
        "python -m degrade plan --config {params.config} --replace --log {log}"


rule degrade_apply:
    input:
        crops=rules.crop.output.manifest,
        plan=rules.degrade_plan.output.table,
    output:
        manifest=ROOT / "degraded/degraded-{shard}.json",
    log:
        ROOT / "logs/degrade_apply-{shard}.log",
    benchmark:
        ROOT / "benchmarks/degrade_apply-{shard}.tsv"
    threads: CONFIG.degrade.workers or CORES
    resources:
        runtime=lambda wildcards, input: degrade_minutes(
            Path(input.plan), int(wildcards.shard)
        ),
    params:
        key=stage_key(stages.APPLY, RUN),
        config=CONFIG_FILE,
    shell:
        "python -m degrade apply --config {params.config} --shard {wildcards.shard} --replace --log {log}"
