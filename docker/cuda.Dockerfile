# Serves on NVIDIA GPUs.
#
#     docker build -f docker/cuda.Dockerfile -t modernbert:cuda .
#     docker run --gpus all --read-only --tmpfs /tmp -p 8080:8080 -v "$PWD/model:/model:ro" modernbert:cuda

FROM python:3.11-slim
# gcc is for torch.compile, which `--compile` uses.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY pyproject.toml hatch_build.py constraints.txt README.md LICENSE ./
COPY src src
RUN pip install --no-cache-dir -c constraints.txt ".[serve]" \
    && useradd --system --uid 10001 --no-create-home modernbert
USER 10001
WORKDIR /tmp
ENV HOME=/tmp PYTHONDONTWRITEBYTECODE=1
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/health', timeout=2)"]
ENTRYPOINT ["modernbert", "serve"]
CMD ["/model", "--host", "0.0.0.0", "--port", "8080"]
