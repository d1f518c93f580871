"""systemd: a unit that runs ``mlpx serve`` on one machine, with its models in a folder that versions are added to."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.version import VERSION

from .target import Deployment, Files, Target, start_in_venv

_PORTS = {"REST": 8000, "gRPC": 8001}
_FOLDER = "/SET-FOLDER"
"""A placeholder for what only the user knows."""


def _options(deployment: Deployment) -> str:
    threads, batch = f"--threads {deployment.threads}", f"--max-batch {deployment.max_batch}"
    workers = "" if deployment.instances == 1 else f" --workers {deployment.instances}"
    every = f" --verify-every {deployment.verify_every:g}"
    return f"models --only-proved --device {deployment.device} {threads} {batch}{workers}{every}"


def _unit(deployment: Deployment) -> str:
    """As systemd.service(5) and systemd.exec(5) describe it. The names need no quotes."""
    return f"""\
# Set {_FOLDER} (twice), which holds this package. mlpx is installed by
#   python3 -m venv /opt/mlpx && /opt/mlpx/bin/pip install --requirement requirements.txt
# and the service by
#   cp mlpx-serve.service /etc/systemd/system/ && systemctl enable --now mlpx-serve
# New files are loaded by systemctl reload mlpx-serve. A token: systemctl edit mlpx-serve, Environment=MLPX_TOKEN=...
[Unit]
Description=Serve the model {deployment.name}
Wants=network-online.target
After=network-online.target

[Service]
WorkingDirectory={_FOLDER}
ReadOnlyPaths={_FOLDER}
ExecStart=/opt/mlpx/bin/mlpx serve {_options(deployment)}
# SIGHUP would end it, as a closed terminal does.
ExecReload=/bin/kill -USR1 $MAINPID
KillMode=mixed
TimeoutStopSec=40
Restart=on-failure
DynamicUser=yes
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices={"no" if deployment.device == "cuda" else "yes"}
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
LimitNOFILE=65536

[Install]
WantedBy=multi-user.target
"""


def _files(deployment: Deployment) -> Files:
    name = deployment.name
    return {
        "mlpx-serve.service": _unit(deployment),
        "requirements.txt": f"mlpx[serve]=={VERSION}\n{deployment.requirement}\n",
        **deployment.model_files(f"models/{name}/1/model.onnx"),
        f"models/{name}/{name}.parity.json": deployment.certificate.path,
    }


def _remarks(deployment: Deployment) -> Sequence[str]:
    return (
        f"A new version is a folder `models/{deployment.name}/2/` with `model.onnx`, and its certificate beside it. "
        "`systemctl reload mlpx-serve` (SIGUSR1) loads it while the old one still answers.",
        "`--only-proved` refuses a file whose bytes no certificate proves. SIGTERM and SIGHUP end the server: requests "
        "in progress get 30 s.",
        "The log is JSON, a line each: `journalctl --unit mlpx-serve --output cat`.",
    )


TARGET = Target(
    name="systemd",
    title="a unit of systemd that runs mlpx serve",
    files=_files,
    start=lambda deployment: start_in_venv(f"mlpx serve {_options(deployment)}"),
    ports=_PORTS,
    exposed_by="`--host` in mlpx-serve.service",
    release=VERSION,
    oldest=VERSION,
    backends=("onnxruntime",),
    bundled=("onnxruntime",),
    fixed={
        "delay_us": (
            "mlpx serve never lets a request wait for others, so not {delay_us} microseconds",
            "leave --delay-us out: requests that arrive together share a batch anyway",
        )
    },
    remarks=_remarks,
)
