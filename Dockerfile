# A worker: the runtime and what serves or spreads it, without torch, build tools or root.
#
#   docker build --tag fsagn-onnx .                                        # serves
#   docker build --tag fsagn-onnx --build-arg EXTRAS=serve,scale,dissect . # also works on a Ray cluster
#
# docs/how-to/deploy-container.md
ARG PYTHON=3.12

FROM python:${PYTHON}-slim-bookworm AS build
ARG EXTRAS=serve
WORKDIR /source
RUN python -m venv --without-pip /opt/fsagn-onnx
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY fsagn_onnx fsagn_onnx
COPY cli cli
COPY models models
COPY examples/pcb examples/pcb
RUN python -m pip --python /opt/fsagn-onnx/bin/python install --no-cache-dir --no-compile \
    --constraint constraints.txt ".[${EXTRAS}]"

FROM python:${PYTHON}-slim-bookworm
RUN useradd --system --uid 10001 --user-group --create-home --shell /usr/sbin/nologin worker
COPY --from=build /opt/fsagn-onnx /opt/fsagn-onnx
ENV PATH=/opt/fsagn-onnx/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /home/worker
EXPOSE 8000
STOPSIGNAL SIGTERM
# Ready once every process of `serve` is warm; a batch job is run with --no-healthcheck.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/v2/health/ready', timeout=4)"]
ENTRYPOINT ["fsagn-onnx"]
CMD ["--help"]
