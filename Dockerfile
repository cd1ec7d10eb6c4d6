# One image for the operator, workers and tasks of stages. Building it needs no network:
#   make wheels && docker build -t crossdock/crossdock:0.1.0 .
# podman and buildah build it alike; without --format docker they leave the health check out.
# Wheels are made for the Python of the base image: `make wheels WHEELS_PYTHON=3.11` for Debian 12's.
ARG BASE_IMAGE=python:3.12-slim

FROM ${BASE_IMAGE} AS build
COPY dist/wheels /wheels
# Versions and hashes are those of the lock file; pip itself stays in this stage.
RUN python3 -m venv /opt/crossdock \
 && /opt/crossdock/bin/python -m pip install --no-index --no-cache-dir --disable-pip-version-check \
      --no-deps --find-links /wheels -r /wheels/requirements.txt \
 && /opt/crossdock/bin/python -m pip check \
 && /opt/crossdock/bin/python -c "import numpy, pyarrow, uvloop, crc32c, cryptography" \
 && /opt/crossdock/bin/python -m pip uninstall --yes --quiet setuptools pip

FROM ${BASE_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="crossdock" \
      org.opencontainers.image.description="Remote shuffle service: operator, workers and tasks" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/crossdock /opt/crossdock
# The root is read-only in a pod: nothing is compiled or written at run time but in mounted places.
ENV PATH=/opt/crossdock/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# The user has no entry in /etc/passwd, nor has one that a cluster chooses: libraries ask here first.
ENV LOGNAME=crossdock
USER 65532:65532
WORKDIR /tmp
STOPSIGNAL SIGTERM
# For Docker and Podman, of a worker; Kubernetes has the probes that the operator and the chart set.
# For the operator: -e CROSSDOCK_HEALTH_URL=http://127.0.0.1:8080/healthz; for tasks: --no-healthcheck.
ENV CROSSDOCK_HEALTH_URL=http://127.0.0.1:7070/healthz
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["python3", "-c", "import os, urllib.request as r; r.urlopen(os.environ['CROSSDOCK_HEALTH_URL'], timeout=4)"]
ENTRYPOINT ["crossdock"]
CMD ["--help"]
