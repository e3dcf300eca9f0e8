"""SkyPilot's task files: read, and their commands understood; planned by SkyPilot itself where it is installed.

The dry run needs `pip install "skypilot[aws]" "moto[server]"` and rsync: moto answers as AWS would, and what machines
AWS has is a short list here, for SkyPilot would fetch the long one.
"""

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import tyro
import yaml

from mathlete.shipped import data_folder
from train.math_command import MATH_COMMAND
from train.settings import MathSettings

FILES = sorted((data_folder() / "launch").glob("*.sky.yaml"))


def task(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return content


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_what_a_task_uses_is_set_and_kept_in_the_bucket(file: Path) -> None:
    content = task(file)
    used = set(re.findall(r"\$\{?([A-Z]+)\}?", str(content["run"]) + str(content["file_mounts"])))
    assert used <= content["envs"].keys()
    assert content["file_mounts"]["/runs"]["source"] == "${BUCKET}"
    assert "/runs/$MODEL" in content["run"]


def test_the_training_command_is_understood() -> None:
    content = task(data_folder() / "launch" / "train.sky.yaml")
    line = content["run"]
    for name, value in content["envs"].items():
        line = line.replace(f"${name}", value)
    words = shlex.split(line.partition("-m train math")[2])
    settings = tyro.cli(MathSettings, args=words, default=MATH_COMMAND.default_settings(words))
    settings.check()
    assert settings.run == Path("/runs/r1-qwen-7b")


@pytest.mark.filterwarnings("ignore")  # SkyPilot's own
@pytest.mark.skipif(find_spec("sky") is None, reason="needs SkyPilot, in an environment of its own")
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_skypilot_takes_the_task(file: Path) -> None:
    import sky

    parsed = sky.Task.from_yaml(str(file))
    assert parsed.name == task(file)["name"]
    assert (parsed.service is None) == (file.name == "train.sky.yaml")


GPU = "\"{{'Gpus': [{{'Name': '{0}', 'Count': 1}}], 'TotalGpuMemoryInMiB': 24000}}\""
HAS = (("g5.xlarge", "A10G", 4, 16, 1.0), ("g5.4xlarge", "A10G", 16, 64, 1.6), ("p5.4xlarge", "H100", 16, 256, 6.9))
CATALOG = {
    "common/accelerators.csv": ["AcceleratorName,Clouds", *(f"{one},['AWS']" for one in ("A10G", "H100", "L40S"))],
    "aws/images.csv": [
        "Tag,Region,OS,OSVersion,ImageId,CreationDate,BaseImageId",
        "skypilot:custom-gpu-ubuntu-cuda13,us-east-1,ubuntu,22.04,ami-1e749f67,20250101,ami-1e749f67",
    ],
    "aws/instance_quota_mapping.csv": ["InstanceType,SpotInstanceCode,OnDemandInstanceCode"],
    "aws/vms.csv": [
        "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,GpuInfo,Price,SpotPrice,Region,AvailabilityZone,Arch",
        *(
            f"{name},{gpu},1.0,{cpus},{memory},{GPU.format(gpu)},{price},{price / 2},us-east-1,use1-az1,x86_64"
            for name, gpu, cpus, memory, price in HAS
        ),
    ],
}
DRY = """
import sys
import boto3, sky
from moto.server import ThreadedMotoServer
from sky import execution, global_user_state
from sky.clouds.cloud import CloudCapability
server = ThreadedMotoServer(port=int(sys.argv[2]))
server.start()
boto3.client("s3").create_bucket(Bucket="your-bucket")
for capability in CloudCapability:
    global_user_state.set_enabled_clouds(["AWS"], capability, "default")
execution.launch(sky.Task.from_yaml(sys.argv[1]), cluster_name="dry", dryrun=True)
server.stop()
"""


@pytest.mark.slow
@pytest.mark.skipif(not (find_spec("sky") and find_spec("moto")), reason="needs SkyPilot and moto")
@pytest.mark.skipif(shutil.which("rsync") is None, reason="SkyPilot needs rsync")
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_skypilot_plans_the_task(file: Path, tmp_path: Path) -> None:
    """`sky launch --dryrun`: the bucket is there, a machine with that GPU and enough memory is found and chosen."""
    for name, lines in CATALOG.items():
        (tmp_path / ".sky/catalogs/v8" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / ".sky/catalogs/v8" / name).write_text("\n".join([*lines, ""]))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    aws = {"DEFAULT_REGION": "us-east-1", "ACCESS_KEY_ID": "none", "SECRET_ACCESS_KEY": "none"}
    variables = {"HOME": str(tmp_path), "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
    variables |= {f"AWS_{name}": value for name, value in aws.items()}
    words = [sys.executable, "-c", DRY, str(file), port]
    root = Path(__file__).parents[1]
    done = subprocess.run(words, cwd=root, env={**os.environ, **variables}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (chosen,) = (line for line in done.stdout.splitlines() if "✔" in line)
    assert "g5.4xlarge" in chosen
