"""A-FINE: triplets, the three training phases, evaluation."""

AFINE_LAUNCH = stages.launch_command(
    CONFIG.scheduling.afine_train_gpus,
    CONFIG.scheduling.afine_train_nodes,
    is_on_cluster=workflow.remote_exec,
)


rule afine_triplets:
    input:
        rules.shards.output.manifest,
    output:
        manifest=ROOT / "afine/triplets.manifest.json",
    log:
        ROOT / "logs/afine_triplets.log",
    benchmark:
        ROOT / "benchmarks/afine_triplets.tsv"
    params:
        key=stage_key(stages.TRIPLETS, RUN),
        config=CONFIG_FILE,
    shell:
        "python -m afine triplets --config {params.config} --replace --log {log}"


rule afine_train:
    input:
        triplets=rules.afine_triplets.output.manifest,
        previous=lambda wildcards: [
            ROOT / f"afine/phase{phase}/manifest.json"
            for phase in range(1, int(wildcards.phase))
        ],
    output:
        manifest=ROOT / "afine/phase{phase}/manifest.json",
    log:
        ROOT / "logs/afine_train-{phase}.log",
    benchmark:
        ROOT / "benchmarks/afine_train-{phase}.tsv"
    retries: RETRIES
    threads: CORES
    resources:
        **stages.node_resources(CONFIG.scheduling.afine_train_nodes),
        gpu=CONFIG.scheduling.afine_train_gpus,
    params:
        key=lambda wildcards: stage_key(stages.TRAIN_PHASES[int(wildcards.phase)], RUN),
        config=CONFIG_FILE,
    shell:
        "threads={threads}; exec {AFINE_LAUNCH} afine train --config {params.config} --phase {wildcards.phase} --replace --log {log}"


rule afine_evaluate:
    input:
        triplets=rules.afine_triplets.output.manifest,
        model=ROOT / "afine/phase3/manifest.json",
    output:
        manifest=ROOT / "afine/evaluate.manifest.json",
    log:
        ROOT / "logs/afine_evaluate.log",
    benchmark:
        ROOT / "benchmarks/afine_evaluate.tsv"
    threads: CORES
    resources:
        gpu=1,
    params:
        key=stage_key(stages.EVALUATE, RUN),
        config=CONFIG_FILE,
    shell:
        "python -m runtime lease --gpus {resources.gpu} -- "
        "python -m afine evaluate --config {params.config} --replace --log {log}"
