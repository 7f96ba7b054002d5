# Two images: `serve` answers requests and has neither torch nor pandas, `train` makes versions.
#   docker build --target serve -t plumbline .
#   docker build --target train -t plumbline-train .
FROM python:3.11-slim AS base
WORKDIR /srv
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
RUN useradd --uid 10001 --no-create-home plumbline && install --directory --owner plumbline /store
COPY pyproject.toml README.md LICENSE ./
COPY model_store model_store
COPY training training
COPY app app

FROM base AS serve
RUN pip install --no-cache-dir .
USER plumbline
ENV PLUMBLINE_STORE=/store PLUMBLINE_HOST=0.0.0.0
EXPOSE 8000
ENTRYPOINT ["python", "-m", "app"]

FROM base AS train
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir --retries 1 --timeout 15 --extra-index-url "$TORCH_INDEX" torch==2.13.0 \
    && pip install --no-cache-dir '.[train]'
USER plumbline
VOLUME /store
ENTRYPOINT ["python", "-m", "training"]
