# A small image that serves on CPUs: no compiler, no root, and no writing but to /tmp.
#
#     docker build -f docker/cpu.Dockerfile -t modernbert:cpu .
#     docker run --read-only --tmpfs /tmp -p 8080:8080 -v "$PWD/runs/labels/model:/model:ro" modernbert:cpu
#
# With --build-arg PIP_EXTRA_INDEX_URL=... , PyTorch's index of builds for CPUs, the image has no libraries for GPUs.

FROM python:3.11-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY pyproject.toml hatch_build.py constraints.txt README.md LICENSE ./
COPY src src
RUN pip install --no-cache-dir build hatchling && python -m build --wheel --no-isolation --outdir /dist

FROM python:3.11-slim
COPY --from=build /dist /dist
COPY constraints.txt /tmp/constraints.txt
ARG PIP_EXTRA_INDEX_URL=""
RUN wheel=$(ls /dist/*.whl) \
    && pip install --no-cache-dir -c /tmp/constraints.txt "${wheel}[serve]" \
    && rm -rf /dist /tmp/constraints.txt \
    && useradd --system --uid 10001 --no-create-home modernbert
USER 10001
ENV HOME=/tmp PYTHONDONTWRITEBYTECODE=1
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/health', timeout=2)"]
ENTRYPOINT ["modernbert", "serve"]
CMD ["/model", "--host", "0.0.0.0", "--port", "8080"]
