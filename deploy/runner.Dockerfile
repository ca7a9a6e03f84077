# The quantizer alone: what runner.hfJobs.image names, and what self-hosted machines may run jobs in. From the top of
# the checkout:
#   docker build -f deploy/runner.Dockerfile -t REGISTRY/yaqa-runner:0.1.0 . && docker push REGISTRY/yaqa-runner:0.1.0
# PyTorch's Linux wheels bring CUDA along; the host brings the driver.
FROM python:3.12-slim-bookworm
# Triton compiles its launchers when a kernel is first used.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/yaqa-runner
COPY gpu-runner ./gpu-runner
RUN pip install --no-cache-dir --require-hashes --no-deps -r gpu-runner/requirements.lock \
    && pip install --no-cache-dir "$(grep '^torch==' gpu-runner/requirements.txt)" \
    && pip install --no-cache-dir --no-deps ./gpu-runner \
    && rm -rf gpu-runner
COPY LICENSE NOTICE ./
RUN useradd --create-home --uid 1000 runner
USER runner
WORKDIR /home/runner
# The job's command line follows: HF Jobs give it themselves.
CMD ["yaqa-runner", "--help"]
