# The control plane. From the top of the checkout:
#   docker build -f deploy/bot.Dockerfile -t yaqa-bot .
# With the quantizer inside, for runner.kind: local (several GB; Debian's Python 3.11):
#   docker build -f deploy/bot.Dockerfile --target bot-with-runner -t yaqa-bot:with-runner .
FROM node:24.21.0-bookworm-slim AS packages
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
# No package's own script is needed, or trusted.
RUN npm ci --ignore-scripts --omit=dev

FROM node:24.21.0-bookworm-slim AS base
ENV NODE_ENV=production \
    YAQA_BOT_HOST=0.0.0.0 \
    YAQA_BOT_DATA_DIR=/data
WORKDIR /app
COPY --from=packages /app/node_modules ./node_modules
COPY package.json LICENSE NOTICE ./
COPY bin ./bin
COPY config ./config
COPY src ./src
RUN mkdir /data && chown node:node /data
USER node
VOLUME /data
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["node", "-e", "fetch('http://127.0.0.1:' + (process.env.PORT || 7860) + '/healthz').then((answer) => process.exit(answer.ok ? 0 : 1), () => process.exit(1))"]
# A stop waits for server.shutdownSeconds; runs go on and are found again.
STOPSIGNAL SIGTERM
ENTRYPOINT ["node", "/app/src/main.ts"]
CMD ["serve"]

FROM base AS bot-with-runner
USER root
# Triton compiles its launchers when a kernel is first used.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
COPY gpu-runner ./gpu-runner
RUN python3 -m venv gpu-runner/.venv \
    && gpu-runner/.venv/bin/pip install --no-cache-dir --require-hashes --no-deps -r gpu-runner/requirements.lock \
    && gpu-runner/.venv/bin/pip install --no-cache-dir "$(grep '^torch==' gpu-runner/requirements.txt)" \
    && gpu-runner/.venv/bin/pip install --no-cache-dir --no-deps ./gpu-runner
USER node

FROM base AS bot
