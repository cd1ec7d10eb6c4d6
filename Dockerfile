# One image for the operator, workers and tasks of stages. Building it needs no network:
#   make wheels && docker build -t crossdock/crossdock:0.1.0 .
# podman build --format docker, or buildah build --layers --format docker, do it alike; without these options
# there is no health check, and buildah makes one layer of all.
# Wheels are made for the Python of the base image: `make wheels WHEELS_PYTHON=3.11` for Debian 12's.
ARG BASE_IMAGE=python:3.12-slim

# What a change of our own code leaves as it is, and so a layer that nodes have already.
FROM ${BASE_IMAGE} AS libraries
COPY dist/wheels/libraries /wheels/libraries
# Versions and hashes are those of the lock file; pip itself stays in this stage. No pod needs pyarrow's
# tests and headers, nor the models of Kubernetes' client: the operator has plain dicts.
RUN python3 -m venv /tmp/pip \
 && python3 -m venv --without-pip /opt/crossdock \
 && /tmp/pip/bin/python -m pip --python /opt/crossdock/bin/python install --no-index --no-cache-dir \
      --disable-pip-version-check --no-deps --find-links /wheels/libraries \
      -r /wheels/libraries/requirements.txt \
 && cd /opt/crossdock/lib/python3*/site-packages \
 && rm -r pyarrow/tests pyarrow/include pyarrow/src \
 && find kubernetes \( -path '*/client/models/*' -o -path '*/client/api/*' \) -type f \
      ! -name '__init__*' -delete

FROM libraries AS own
COPY dist/wheels/own /wheels/own
# Below a root of its own, so that it is a layer of its own; beside the libraries only to be looked at.
RUN /tmp/pip/bin/python -m pip --python /opt/crossdock/bin/python install --no-index --no-cache-dir \
      --disable-pip-version-check --no-deps --find-links /wheels/own -r /wheels/own/requirements.txt \
      --no-warn-script-location --root /own \
 && cp -r /own/opt/crossdock/. /opt/crossdock \
 && /tmp/pip/bin/python -m pip --python /opt/crossdock/bin/python --disable-pip-version-check check \
 && /opt/crossdock/bin/python -c "import numpy, pyarrow, uvloop, crc32c, cryptography" \
 && /opt/crossdock/bin/python -c "import crossdock_operator.run, crossdock_worker.cli" \
 && /opt/crossdock/bin/crossdock operator --help > /dev/null

FROM ${BASE_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="crossdock" \
      org.opencontainers.image.description="Remote shuffle service: operator, workers and tasks" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=libraries /opt/crossdock /opt/crossdock
COPY --from=own /own/opt/crossdock /opt/crossdock
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
