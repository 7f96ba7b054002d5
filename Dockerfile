# Images: `serve` answers requests and has neither torch nor pandas, `train` makes versions.
#   docker build --target serve -t plumbline .
#   docker build --target serve --build-arg LOCK=cloud -t plumbline-cloud .    with object stores and tracing
#   docker build --target train -t plumbline-train .
ARG PYTHON=3.11
FROM python:${PYTHON}-slim AS base
WORKDIR /srv
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PATH=/opt/venv/bin:$PATH
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin plumbline \
    && install --directory --owner plumbline /store \
    && python -m venv --without-pip /opt/venv
COPY LICENSE .

# Only wheels: building from source would fetch build tools that no hash pins.
FROM base AS serve-packages
ARG LOCK=serve
COPY requirements/${LOCK}.txt lock.txt
RUN pip --python /opt/venv/bin/python install --no-cache-dir --only-binary :all: --require-hashes --requirement lock.txt \
    && find /opt/venv -type d -name tests -prune -exec rm -r {} +

FROM base AS serve
COPY --from=serve-packages /opt/venv /opt/venv
COPY model_store model_store
COPY app app
RUN python -m compileall -q app model_store
ENV PLUMBLINE_STORE=/store PLUMBLINE_HOST=0.0.0.0
USER 10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s CMD ["python", "-m", "app.healthcheck"]
ENTRYPOINT ["python", "-m", "app.container"]

FROM base AS train
COPY requirements/train.txt lock.txt
RUN pip --python /opt/venv/bin/python install --no-cache-dir --only-binary :all: --require-hashes --requirement lock.txt \
    && find /opt/venv -type d -name tests -prune -exec rm -r {} +
# An index or a page of links to wheels; where it does not answer, the default index gives a torch of gigabytes.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip --python /opt/venv/bin/python install --no-cache-dir --only-binary :all: --retries 1 --timeout 15 \
    --extra-index-url "$TORCH_INDEX" --find-links "$TORCH_INDEX" torch==2.13.0
COPY model_store model_store
COPY training training
ENV MPLCONFIGDIR=/tmp
USER 10001
VOLUME /store
ENTRYPOINT ["python", "-m", "training"]
