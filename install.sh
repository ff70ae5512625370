#!/bin/sh
# Install the project and its pinned dependencies into an environment.
#   sh install.sh PATH/TO/python "dev,oracle,slurm"
# A torch with torchvision that the environment already sees is kept: its pins are left out.
set -eu
python=$1
extras=$2
constraints=constraints.txt

if "$python" -c "import torch, torchvision" 2>/dev/null; then
    constraints=$(mktemp)
    trap 'rm -f "$constraints"' EXIT
    grep -v -i -E '^(torch|torchvision|triton|cuda-[a-z]+|nvidia-[a-z0-9-]+)==' constraints.txt > "$constraints"
    "$python" -c "import torch; print('keeping torch', torch.__version__)"
fi

echo "installing into $("$python" -c 'import sys; print(sys.prefix)'): about 5 GB, 3 minutes"
"$python" -m pip install --quiet --upgrade -c "$constraints" pip setuptools wheel
"$python" -m pip install --quiet -c "$constraints" torch torchvision
"$python" -m pip install --quiet -c "$constraints" --no-build-isolation -e ".[$extras]"
# basicsr's build imports torch, and its metadata names tb-nightly, which it does not need:
# built against the torch above, without its dependencies (they are in pyproject.toml)
"$python" -m pip install --quiet -c "$constraints" --no-deps --no-build-isolation basicsr==1.4.2
