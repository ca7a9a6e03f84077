#!/usr/bin/env bash
# Lays a Docker Space out in a folder: deploy/space/assemble.sh FOLDER
# A Space builds the Dockerfile at its top, and reads its settings from the README there.
set -euo pipefail
target=${1:?Usage: deploy/space/assemble.sh FOLDER}
cd "$(dirname "$0")/../.."
mkdir -p "$target"
cp -R package.json package-lock.json .npmrc LICENSE NOTICE bin config src "$target/"
cp deploy/space/README.md "$target/README.md"
cp deploy/bot.Dockerfile "$target/Dockerfile"
