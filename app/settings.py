"""What the service can be told, from arguments or `PLUMBLINE_…` variables."""

from typing import Annotated

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """The service's settings, read once at start-up."""

    model_config = SettingsConfigDict(env_prefix="PLUMBLINE_", frozen=True)

    store: str = Field("models", description="The store's folder.")
    name: str | None = Field(None, description="The model to serve; not needed when the store has just one.")
    host: str = Field("127.0.0.1", description="The address to listen on.")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(8000, description="The port to listen on.")
    max_body_bytes: Annotated[int, Field(gt=0)] = Field(
        16 * 1024 * 1024, description="The largest request body that is read; a larger one is answered 413."
    )


def first_fault(error: ValidationError) -> str:
    """The first setting that cannot be used, and why."""
    fault = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
