"""What the service can be told, from arguments or `PLUMBLINE_…` variables, read once at start-up."""

import re
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AliasChoices,
    Field,
    PositiveInt,
    PrivateAttr,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from model_store.errors import InvalidName
from model_store.manifest import check_name

PREFIX = "PLUMBLINE_"
DAY = 86_400
Port = Annotated[int, Field(ge=0, le=65535)]


def also(name: str) -> AliasChoices:
    """The setting's own variable before the one that platforms set."""
    return AliasChoices(f"{PREFIX}{name}", name if name != "WORKERS" else "WEB_CONCURRENCY")


class Settings(BaseSettings):
    """The service's settings. Each is an argument too; arguments are stronger than variables."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, populate_by_name=True, env_ignore_empty=True, case_sensitive=False
    )

    store: str = Field("models", description="The store: a folder, or s3://…, gs://…, az://… .")
    name: str | None = Field(None, description="The model to serve; not needed when the store has just one.")
    version: PositiveInt | None = Field(
        None,
        description="A version to pin; without it the promoted one is served and promotions are followed.",
    )
    refresh_seconds: float = Field(
        5.0, gt=0, le=DAY, description="How often the store is asked for a promotion."
    )
    host: str = Field("127.0.0.1", validation_alias=also("HOST"), description="The address to listen on.")
    port: Port = Field(8000, validation_alias=also("PORT"), description="The port to listen on.")
    workers: PositiveInt = Field(
        1,
        validation_alias=also("WORKERS"),
        description="How many processes answer, each with a copy of the model.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info",
        validation_alias=also("LOG_LEVEL"),
        description="The least important log line that is written.",
    )
    log_requests: float = Field(
        0.0,
        ge=0,
        le=1,
        description="The share of requests that are logged: 1 for all, 0.01 for one in a hundred.",
    )
    tracing: bool = Field(
        default=False,
        description="Whether requests are traced, as OTEL_… variables say; needs the extra tracing.",
    )
    drain_seconds: float = Field(
        0.0,
        ge=0,
        le=DAY,
        description="How long requests are still accepted after SIGTERM, while /readyz is 503 already.",
    )
    grace_seconds: PositiveInt = Field(
        20, description="How long requests in flight may then take before the process ends."
    )
    max_in_flight: PositiveInt = Field(
        256, description="The most requests that are answered at a time; more get 503 with Retry-After."
    )
    max_body_bytes: PositiveInt = Field(
        5 * 2**20, description="The largest JSON body that is read; a larger one is answered 413."
    )
    max_rows: PositiveInt = Field(
        100_000, description="The most rows of a JSON batch; more are answered 413. A CSV has no limit."
    )
    api_keys: SecretStr = Field(
        SecretStr(""), description="SHA-256 of each key that may call, in hex, separated by commas or spaces."
    )
    api_keys_file: Path | None = Field(None, description="A file with more of them, one a line.")
    metrics_open: bool = Field(
        default=False, description="Whether /metrics answers without a key when keys are asked for."
    )

    _key_digests: frozenset[str] = PrivateAttr(frozenset())

    @property
    def key_digests(self) -> frozenset[str]:
        """The SHA-256 of every key that may call; none, and anybody may."""
        return self._key_digests

    @field_validator("log_level", mode="before")
    @classmethod
    def _in_lower_case(cls, level: object) -> object:
        return level.lower() if isinstance(level, str) else level

    @field_validator("name")
    @classmethod
    def _can_name_a_model(cls, name: str | None) -> str | None:
        try:
            return name and check_name(name)
        except InvalidName as error:
            raise ValueError(str(error)) from None

    @field_validator("tracing")
    @classmethod
    def _can_trace(cls, wanted: bool) -> bool:
        if wanted and find_spec("opentelemetry.sdk") is None:
            message = "the extra tracing is not installed: pip install 'plumbline[tracing]'"
            raise ValueError(message)
        return wanted

    @model_validator(mode="after")
    def _read_keys(self) -> Self:
        digests = [digests_in("api_keys", self.api_keys.get_secret_value())]
        if self.api_keys_file:
            try:
                written = self.api_keys_file.read_text(encoding="ascii")
            except (OSError, UnicodeError):
                message = "api_keys_file: it cannot be read as a file of SHA-256 digests"
                raise ValueError(message) from None
            digests.append(digests_in("api_keys_file", written))
            if not digests[-1]:
                message = "api_keys_file: it holds no SHA-256 of a key"
                raise ValueError(message)
        self._key_digests = frozenset().union(*digests)
        return self


def digests_in(setting: str, written: str) -> frozenset[str]:
    """The digests in a setting's text; raises ValueError for anything else."""
    words = [word.lower() for word in re.split(r"[,\s]+", written) if word]
    if not all(re.fullmatch(r"[0-9a-f]{64}", word) for word in words):
        wanted = "the SHA-256 of each key is expected, 64 hexadecimal digits"
        message = f"{setting}: {wanted}: printf %s KEY | sha256sum"
        raise ValueError(message)
    return frozenset(words)


def variables() -> set[str]:
    """The names of all variables with the prefix that mean something."""
    return {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}


def unknown_variables(environment: Iterable[str]) -> list[str]:
    """The variables that look like settings and are none."""
    return sorted(
        name for name in environment if name.upper().startswith(PREFIX) and name.upper() not in variables()
    )


def first_fault(error: ValidationError) -> str:
    """The first setting that cannot be used, and why."""
    fault = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(map(str, fault["loc"])).removeprefix(PREFIX).lower()
    message = fault["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message
