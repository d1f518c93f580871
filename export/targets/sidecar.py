"""What keeps a packaged model checked: a service for systemd, and for a pod of Kubernetes a container.

Both run ``mlpx verify --url --every``, which asks the server for the rows of the certificate again and again.
"""

from __future__ import annotations

from runtime.version import VERSION

from .target import Deployment, Files, Target, yaml_text

PORT = 9465
"""Of /ready, /health and /metrics."""
_EVERY = "10m"
_MLPX = "/opt/mlpx/bin/mlpx"
_REGISTRY = "SET-REGISTRY"
_FOLDER = "/SET-FOLDER"
"""Placeholders for what only the user knows."""


def sidecar(deployment: Deployment, target: Target) -> Files:
    """The files below ``verify/``; none for a target that is not a server of the Open Inference Protocol."""
    if not target.speaks_v2:
        return {}
    files = {"verify/mlpx-verify.service": _service(deployment, target)}
    if target.in_pods:
        files |= {"verify/Dockerfile": _dockerfile(deployment), "verify/container.yaml": _container(deployment, target)}
    return files


def described(deployment: Deployment, target: Target) -> str:
    """The section of the package's README."""
    lines = [
        "## Keep it checked",
        "",
        f"`mlpx verify --url` asks again every {_EVERY}, prints what fails, and answers on port {PORT}: `/ready` with "
        "200 only while the last check holds, `/metrics` for Prometheus.",
        "",
        "- `verify/mlpx-verify.service` is a service for systemd, on the machine of the server.",
    ]
    if target.in_pods:
        lines += [
            "- `verify/container.yaml` is a container to put beside the server's in its pod: while the answers are not "
            "those that were proved, the pod gets no requests. Its image:",
            "",
            "```console",
            f"docker build --file verify/Dockerfile --tag {_image(deployment)} .",
            f"docker push {_image(deployment)}",
            "```",
        ]
    return "\n".join(lines)


def _command(deployment: Deployment, target: Target, folder: str, address: str) -> list[str]:
    certificate = f"{folder}/{deployment.name}.parity.json"
    asked = ["verify", "--url", target.url(deployment.name), "--certificate", certificate]
    return [*asked, "--every", _EVERY, "--metrics", f"{address}:{PORT}"]


def _service(deployment: Deployment, target: Target) -> str:
    """A unit, as systemd.service(5) describes it. The names need no quotes."""
    command = " ".join([_MLPX, *_command(deployment, target, _FOLDER, "127.0.0.1")])
    return f"""\
# Set {_FOLDER}, which holds the certificate. mlpx is installed by
#   python3 -m venv /opt/mlpx && /opt/mlpx/bin/pip install "mlpx[cpu]=={VERSION}"
# and the service by
#   cp mlpx-verify.service /etc/systemd/system/ && systemctl enable --now mlpx-verify
# Where the server requires a token: systemctl edit mlpx-verify, and Environment=MLPX_TOKEN=...
[Unit]
Description=Check that the model {deployment.name} answers as it was proved to
Wants=network-online.target
After=network-online.target

[Service]
ExecStart={command}
Restart=on-failure
DynamicUser=yes
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes

[Install]
WantedBy=multi-user.target
"""


def _image(deployment: Deployment) -> str:
    return f"{_REGISTRY}/{deployment.plain_name}-verify:1"


def _dockerfile(deployment: Deployment) -> str:
    certificate = f"{deployment.name}.parity.json"
    return f"""\
FROM python:3.11-slim
RUN pip install --no-cache-dir "mlpx[cpu]=={VERSION}"
COPY {certificate} /model/{certificate}
USER 1000
ENTRYPOINT ["mlpx"]
"""


def _container(deployment: Deployment, target: Target) -> str:
    """An item of a pod's ``containers``. No port is declared: Knative allows only one container of a pod to do so."""

    def probe(path: str, **times: int) -> dict[str, object]:
        return {"httpGet": {"path": path, "port": PORT}, **times}

    container = {
        "name": "mlpx-verify",
        "image": _image(deployment),
        "args": _command(deployment, target, "/model", "0.0.0.0"),
        "resources": {
            "requests": {"cpu": "50m", "memory": "128Mi"},
            "limits": {"cpu": "500m", "memory": "512Mi"},
        },
        "readinessProbe": probe("/ready", periodSeconds=10, failureThreshold=1),
        "livenessProbe": probe("/health", periodSeconds=30, timeoutSeconds=5),
    }
    comments = [
        "An item of `containers` in the pod of the server (of `predictor` in an InferenceService), which it checks.",
        f"Set image ({_REGISTRY}): the name that the image of verify/Dockerfile was pushed by.",
        "Where the server requires a token: the environment variable MLPX_TOKEN, from a secret.",
    ]
    return "".join(f"# {comment}\n" for comment in comments) + yaml_text([container])
